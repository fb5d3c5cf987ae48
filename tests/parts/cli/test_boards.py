"""Watching tasks: when it stops, and what is shown where."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from rich.console import Console
from sqlalchemy.exc import OperationalError

from qhana_taskstate.cli.text import boards
from qhana_taskstate.cli.text.boards import JsonBoard, LineBoard, LiveBoard
from qhana_taskstate.clock import now
from qhana_taskstate.errors import DatabaseUnavailableError
from qhana_taskstate.reading.as_json import task_json
from qhana_taskstate.reading.rows.activity import Activity, ActivityWord
from qhana_taskstate.reading.rows.views import ProgressView, StepView, TaskView

BEGIN = now()
QUEUED = Activity(ActivityWord.QUEUED, "queued in celery", ("celery",))
WAITING = Activity(ActivityWord.WAITING, "waits for input at step k")


def task(id_: int = 1, **facts: Any) -> TaskView:
    """Make a pending task."""
    view = TaskView(
        id=id_,
        task_name="job",
        status="PENDING",
        started_at=BEGIN,
        finished_at=None,
        progress=None,
        tracked=True,
        open_ended=False,
        waiting_step=None,
        activity=QUEUED,
    )
    return replace(view, **facts)


def ended(id_: int = 1, status: str = "SUCCESS", **facts: Any) -> TaskView:
    """Make a task that has ended."""
    return task(id_, status=status, finished_at=BEGIN, **facts)


def progress(value: float) -> ProgressView:
    """Make a progress."""
    return ProgressView(value=value, start=0, target=100, unit="%")


def looks(*views: Sequence[TaskView] | Exception) -> Callable[[], Sequence[TaskView]]:
    """Give these views one after the other."""
    remaining: Iterator[Sequence[TaskView] | Exception] = iter(views)

    def look() -> Sequence[TaskView]:
        seen = next(remaining)
        if isinstance(seen, Exception):
            raise seen
        return seen

    return look


def watch_lines(*views: Sequence[TaskView] | Exception, **options: Any) -> list[str]:
    """Watch and return the lines."""
    lines: list[str] = []
    boards.watch(looks(*views), LineBoard(lines.append, interval=0), interval=0, **options)
    return lines


def test_watching_stops_when_all_have_ended() -> None:
    lines = watch_lines([task(1), task(2)], [ended(1), task(2)], [ended(1), ended(2, "ERROR")])

    assert [line.split("  ")[:3] for line in lines] == [
        ["task 1", "job", "PENDING"],
        ["task 2", "job", "PENDING"],
        ["task 1", "job", "SUCCESS"],
        ["task 2", "job", "ERROR"],
    ]


def test_a_task_that_was_deleted_is_not_waited_for() -> None:
    assert len(watch_lines([task(1), task(2)], [ended(1)])) == 3


def test_only_changes_make_lines() -> None:
    step = StepView(number=0, step_id="k", href="h", ui_href="http://ui", cleared=False)

    lines = watch_lines(
        [task()],
        [task()],
        [task(progress=progress(5))],
        [task(progress=progress(5))],
        [task(waiting_step=step, activity=WAITING)],
        [ended(progress=progress(100))],
    )

    assert [line.removeprefix("task 1  job  ") for line in lines] == [
        "PENDING  queued in celery",
        "PENDING  5 of 100 %  queued in celery",
        "PENDING  waits for input at step k: http://ui",
        "SUCCESS  100 of 100 %  took 0.00 s",
    ]


def test_seconds_that_are_counted_down_make_no_line() -> None:
    lines = watch_lines(
        *([task(activity=Activity(ActivityWord.DELAYED, f"starts in {left} s"))] for left in (3, 2, 1)),
        [task(activity=Activity(ActivityWord.RUNNING, "running on a@b"))],
        [ended()],
    )

    assert [line.split("  ")[3] for line in lines] == ["starts in 3 s", "running on a@b", "took 0.00 s"]


def test_progress_alone_makes_no_more_lines_than_one_an_interval() -> None:
    lines: list[str] = []
    board = LineBoard(lines.append, interval=3600)

    for value in range(100):
        board.show([task(progress=progress(value))])
    board.show([ended(progress=progress(100))])

    assert len(lines) == 2


def test_a_database_that_is_away_for_a_moment_is_waited_for() -> None:
    gone = OperationalError("SELECT", {}, Exception("server closed the connection"))

    lines = watch_lines([task()], DatabaseUnavailableError("away"), gone, [ended()])

    assert len(lines) == 2


def test_a_database_that_stays_away_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boards, "PATIENCE_SECONDS", 0)

    with pytest.raises(DatabaseUnavailableError):
        watch_lines([task()], DatabaseUnavailableError("away"))


def test_watching_too_long_names_what_has_not_ended() -> None:
    with pytest.raises(TimeoutError, match="task 2"):
        watch_lines([ended(1), task(2)], timeout=0)


def test_json_lines_are_objects() -> None:
    lines: list[str] = []

    boards.watch(looks([task()], [ended()]), JsonBoard(lines.append, task_json), interval=0)

    objects = [json.loads(line) for line in lines]
    assert [seen["status"] for seen in objects] == ["PENDING", "SUCCESS"]
    assert datetime.fromisoformat(objects[1]["finished_at"]) == BEGIN


def test_a_terminal_shows_bars_whose_texts_are_no_markup() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=120, color_system=None)
    name = "[red]my job\x1b[2J"

    boards.watch(
        looks(
            [task(task_name=name, progress=progress(40)), task(2, open_ended=True)],
            [ended(task_name=name, progress=progress(100)), ended(2, "ERROR")],
        ),
        LiveBoard(console),
        interval=0,
    )

    shown = out.getvalue()
    assert "1 [red]my job\\x1b[2J" in shown
    assert "100 of 100 %" in shown
    assert "SUCCESS" in shown
    assert "ERROR" in shown


def test_a_board_can_be_left_and_entered_again() -> None:
    out = io.StringIO()
    board = LiveBoard(Console(file=out, force_terminal=True, width=120, color_system=None))

    for view in (task(), ended()):
        with board.running():
            board.show([view])

    assert "SUCCESS" in out.getvalue()


@pytest.mark.parametrize(
    ("view", "words"),
    [
        (task(), "queued in celery"),
        (task(activity=replace(QUEUED, text="queued in \x1b[2J")), "queued in \\x1b[2J"),
        (ended(), ""),
        (ended(status="ERROR", activity=Activity(ActivityWord.ENDED, "work: ValueError: no")), "work: ValueError: no"),
    ],
)
def test_what_a_task_does_is_said_and_why_it_failed(view: TaskView, words: str) -> None:
    assert boards.note(view) == words
