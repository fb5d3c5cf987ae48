"""Tasks that run where they are started, as the tests of a plugin let them."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from qhana_taskstate import ProcessingTask, TaskState, add_log, plugin_task
from qhana_taskstate.database.tables.executions import execution_table
from tests.contract.conftest import MakeState

pytestmark = pytest.mark.versions


class Refused(Exception):
    """What the bodies below raise."""


@plugin_task(name="eager.fails")
def fails() -> None:
    add_log("begun")
    raise Refused("not today")


@plugin_task(name="eager.tries_again", autoretry_for=(Refused,), max_retries=2, default_retry_delay=0)
def tries_again() -> None:
    raise Refused("not today")


@plugin_task(name="eager.calls_another", bind=True)
def calls_another(self: Any) -> str:
    with pytest.raises(Refused):
        fails.apply(throw=True)
    return "went on"


def only_task() -> ProcessingTask:
    task = ProcessingTask.get_by_id(1)
    assert task is not None
    assert ProcessingTask.get_by_id(2) is None
    return task


@pytest.fixture
def propagating(make_state: MakeState) -> TaskState:
    """A `TaskState` whose tasks run where they are started, and raise there, too."""
    state = make_state(eager=True, flush_interval_seconds=0.1)
    state.app.conf.task_eager_propagates = True
    return state


@pytest.mark.parametrize("how", ["start", "delay", "canvas"])
def test_what_the_body_raises_ends_the_task_and_reaches_the_caller(propagating: TaskState, how: str) -> None:
    with pytest.raises(Refused, match="not today"):
        if how == "start":
            fails.start()
        elif how == "delay":
            fails.delay()
        else:
            propagating.start(fails.s() | fails.si())

    task = only_task()
    assert task.status == "ERROR"
    assert task.task_log == "begun\neager.fails failed: Refused: not today"


def test_retry_that_is_raised_ends_the_task_with_its_cause(propagating: TaskState) -> None:
    with pytest.raises(Exception, match="not today"):
        tries_again.start()

    task = only_task()
    assert task.status == "ERROR"
    assert task.task_log == "eager.tries_again failed: Refused: not today"


def test_traceback_of_what_was_raised_is_kept(propagating: TaskState) -> None:
    with pytest.raises(Refused):
        fails.start()

    with propagating.database.reading() as connection:
        traceback = connection.execute(select(execution_table.c.traceback)).scalar_one()
    assert 'raise Refused("not today")' in traceback


def test_execution_that_raises_in_another_ends_as_failed(eager: TaskState) -> None:
    calls_another.start()

    task = only_task()
    assert task.status == "ERROR"
    assert "eager.fails failed: Refused: not today" in task.task_log
    assert "went on" in task.task_log
