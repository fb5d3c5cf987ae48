"""States that a body stores itself, with Celery's `update_state`."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery

from qhana_taskstate.context.current import enter
from qhana_taskstate.context.execution import Execution
from qhana_taskstate.facts import ExecutionKey, TaskRef
from qhana_taskstate.plugin.decorator import hear_states


@pytest.fixture
def plain() -> Any:
    """A task that is no plugin task."""
    app = Celery("plain", broker="memory://", backend="cache+memory://", set_as_current=False)

    @app.task(name="unit.plain", shared=False)
    def work() -> None:
        """Do nothing."""

    hear_states(work)
    return work


def _told(task: Any, *arguments: Any, **keywords: Any) -> Any:
    """Return what an execution is told of the end that its body stored."""
    execution = Execution(TaskRef(1, "token"), key=ExecutionKey("a"), name=task.name)
    leave = enter(execution)
    try:
        task.update_state(*arguments, **keywords)
    finally:
        leave()
    return execution.stored_failure


def test_failed_state_is_told_and_stored(plain: Any) -> None:
    told = _told(plain, "a", "FAILURE", {"exc_type": "ValueError", "exc_message": ["the cause"]})

    assert (told.type, told.message) == ("ValueError", "the cause")
    assert plain.backend.get_state("a") == "FAILURE"


@pytest.mark.parametrize(("celery_id", "state"), [("a", "PROGRESS"), ("another", "FAILURE")])
def test_other_state_and_that_of_another_execution_are_no_end(plain: Any, celery_id: str, state: str) -> None:
    assert _told(plain, task_id=celery_id, state=state, meta={"exc_type": "E", "exc_message": "m"}) is None


def test_later_state_takes_the_place_of_a_failed_one(plain: Any) -> None:
    execution = Execution(TaskRef(1, "token"), key=ExecutionKey("a"), name=plain.name)
    leave = enter(execution)
    plain.update_state("a", "FAILURE", {"exc_type": "ValueError", "exc_message": "no"})
    plain.update_state("a", "PROGRESS", {})
    leave()

    assert execution.stored_failure is None


def test_hearing_twice_is_once(plain: Any) -> None:
    heard = plain.update_state
    hear_states(plain)
    assert plain.update_state is heard
