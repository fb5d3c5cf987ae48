"""How far a task of several executions is said to have come."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery, chain, chord, group

from qhana_taskstate.facts import Progress
from qhana_taskstate.recording.executions.followers import followers
from qhana_taskstate.store.progress.canvas import Canvas, canvas_progress, is_of_canvas, is_same


def shown(value: float, target: float) -> Progress:
    """Make a progress of a canvas."""
    return Progress(value, 0.0, target, "tasks")


@pytest.mark.parametrize(
    ("canvas", "before", "told"),
    [
        (Canvas(known=50), None, (0, 50)),
        (Canvas(known=50, done=7, parts=0.4), None, (7.4, 50)),
        (Canvas(known=2, done=1, to_come=3), None, (1, 5)),
        # The rest of the chain is not known to whoever counts now.
        (Canvas(known=3, done=2), shown(1, 5), (2, 5)),
        # Everything known is done, and the body of the chord is still to come.
        (Canvas(known=50, done=50), shown(49, 50), (50, 51)),
        # A failed attempt of one that had reported.
        (Canvas(known=50, done=7, parts=0.0), shown(7.9, 50), (7.9, 50)),
        # Work that grows does not move the bar back.
        (Canvas(known=20, done=5), shown(5, 10), (10, 20)),
        (Canvas(known=2, parts=1.98), None, (1.98, 2)),
        (Canvas(known=2, done=1, parts=0.99), shown(1.99, 2), (1.99, 2)),
        # What one execution had shown while it was alone.
        (Canvas(known=2, done=1), Progress(4, 0, 4, "parts"), (1, 2)),
        (Canvas(known=51, done=51, ended=True), shown(50.9, 51), (51, 51)),
        (Canvas(known=2, done=2, ended=True), shown(1, 5), (2, 2)),
    ],
)
def test_members_are_counted_with_the_parts_of_those_that_report(
    canvas: Canvas, before: Progress | None, told: tuple[float, float]
) -> None:
    progress = canvas_progress(canvas, before)

    assert (progress.value, progress.target) == pytest.approx(told)
    assert (progress.start, progress.unit) == (0, "tasks")


def test_an_open_task_shows_no_full_bar_and_the_bar_never_goes_back() -> None:
    steps = [
        Canvas(known=known, done=done, parts=parts) for known in (2, 5, 9) for done in (1, 2) for parts in (0.9, 0)
    ]
    told: Progress | None = None
    shares = []

    for canvas in steps:
        told = canvas_progress(canvas, told)
        shares.append(told.value / told.target)

    assert shares == sorted(shares)
    assert shares[-1] < 1


def test_digits_that_a_database_drops_make_no_difference() -> None:
    assert is_same(shown(7.4, 50), shown(7.400000095, 50))
    assert not is_same(shown(7.4, 50), shown(7.41, 50))
    assert not is_same(shown(7.4, 50), Progress(7.4, 0, 50, "parts"))


app = Celery("followers", broker="memory://", set_as_current=False)


@app.task(name="followers.work")
def work() -> None:
    """Do nothing."""


@pytest.mark.parametrize(
    ("rest", "count"),
    [
        (None, 0),
        ([], 0),
        ([work.si(), work.si()], 2),
        ([group(work.si() for _ in range(3)), work.si()], 4),
        ([chord([work.si(), work.si()], work.si())], 3),
        ([chain(work.si(), group(work.si(), chain(work.si(), work.si())))], 4),
        (["nonsense"], 0),
    ],
)
def test_the_rest_of_a_chain_is_counted(rest: Any, count: int) -> None:
    assert followers(SimpleNamespace(chain=rest)) == count
    assert followers(object()) == 0


def test_value_beyond_the_target_was_written_by_a_plugin() -> None:
    assert is_of_canvas(Progress(2.0, 0.0, 4.0, "tasks"))
    assert not is_of_canvas(Progress(66.0, 0.0, 4.0, "tasks"))
