"""What is recorded of an execution whose end in `task_postrun` did not reach us, by what was told before."""

from __future__ import annotations

import pytest
from celery.exceptions import Retry

from qhana_taskstate.facts import Failure
from qhana_taskstate.recording.exits.decision import Close, Exit, decide_unseen, retry_cause
from qhana_taskstate.states import ExecutionState

_CAUSE = Failure(type="ValueError", message="the cause")


@pytest.mark.parametrize(
    ("told", "end"),
    [
        (Exit(state=None, succeeded=True), Close(ExecutionState.SUCCESS)),
        (Exit(state=None, retried=_CAUSE), Close(ExecutionState.RETRY, _CAUSE)),
        (Exit(state=None, failure=_CAUSE), Close(ExecutionState.FAILURE, _CAUSE)),
    ],
    ids=["succeeded", "retried", "failed"],
)
def test_what_celery_told_before_is_the_end(told: Exit, end: Close) -> None:
    assert decide_unseen(told) == end


def test_end_of_which_nothing_was_told_is_lost() -> None:
    assert decide_unseen(Exit(state=None)).state == ExecutionState.LOST


def test_cause_of_another_attempt_is_the_error_and_not_its_wrapping() -> None:
    assert retry_cause(Retry(exc=ValueError("the cause"))).summary == "ValueError: the cause"
    assert retry_cause(Retry("later")).type == "Retry"
