"""What is said about workers that are not there."""

from __future__ import annotations

from datetime import timedelta

import pytest

from qhana_taskstate.cli.attendance import NO_WORKER, Attendance
from qhana_taskstate.cli.text.boards import TroubleBoard
from qhana_taskstate.clock import now
from qhana_taskstate.reading.rows.activity import Activity, ActivityWord
from qhana_taskstate.reading.rows.views import TaskView
from tests.waiting import wait_until

MOMENT = now()


def task(queue: str = "slow", *, seconds: float = 10) -> TaskView:
    """Make a task that has waited in a queue for so many seconds."""
    since = MOMENT - timedelta(seconds=seconds)
    activity = Activity(ActivityWord.QUEUED, f"queued in {queue}", (queue,), since)
    return TaskView(
        id=1,
        task_name="job",
        status="PENDING",
        started_at=since,
        finished_at=None,
        progress=None,
        tracked=True,
        open_ended=False,
        waiting_step=None,
        activity=activity,
    )


def attendance(answer: set[str] | None, *, works: bool = False) -> Attendance:
    """Make one whose workers answer so."""
    return Attendance(lambda: answer, lambda: works)


@pytest.mark.parametrize(
    ("answer", "works", "trouble"),
    [
        (None, False, NO_WORKER),
        (None, True, ""),
        ({"celery"}, False, "nobody consumes queue slow"),
        ({"celery", "slow"}, False, ""),
    ],
)
def test_work_that_waits_long_says_who_is_missing(answer: set[str] | None, works: bool, trouble: str) -> None:
    asked = attendance(answer, works=works)

    asked.ask()

    [seen] = asked.told([task()], MOMENT)
    assert seen.activity.trouble == trouble
    assert [view.activity.trouble for view in asked.told([task(seconds=1)], MOMENT)] == [""]


def test_a_broker_that_cannot_be_asked_is_said() -> None:
    def ask() -> set[str]:
        raise ConnectionError("refused")

    asked = Attendance(ask, lambda: False)
    asked.ask()

    assert asked.told([task()], MOMENT)[0].activity.trouble == "the broker does not answer"


def test_watching_asks_in_the_background_and_only_once_work_waits_for_long() -> None:
    questions: list[int] = []

    def ask() -> None:
        questions.append(1)

    asked = Attendance(ask, lambda: False)
    asked.see([task(seconds=1)], MOMENT)
    assert questions == []
    wait_until("it is told", lambda: asked.see([task()], MOMENT)[0].activity.trouble == NO_WORKER, timeout=5)
    assert questions == [1]


def test_commands_with_another_output_say_a_trouble_once() -> None:
    lines: list[str] = []
    asked = attendance(None)
    asked.ask()
    board = TroubleBoard(lines.append)

    for views in ([task()], asked.told([task()], MOMENT), asked.told([task()], MOMENT)):
        board.show(views)

    assert lines == [f"task 1: queued in slow; {NO_WORKER}"]
