"""How far a task of several executions has come: one rule, whose bar never goes back. Pure; knows no rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from ...facts import Progress

#: Unit of the progress that a task of several executions shows.
CANVAS_UNIT: Final = "tasks"


#: The most that an execution counts which is still open, whatever it reports: an open task shows no full bar.
MOST_OF_ONE: Final = 0.99


#: Digits after the point of what is shown.
_DIGITS: Final = 6


#: A database may keep fewer digits than Python (MariaDB's FLOAT has seven).
_TOLERANCE: Final = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Canvas:
    """The members of a task: what was published so far, without Celery's own helpers.

    The attempts of one message, and what it was replaced by under its id, are one member.

    Attributes:
        known: How many there are.
        done: How many of them have no open execution.
        parts: The sum of the shares (each from 0 to `MOST_OF_ONE`) that open ones report.
        to_come: How many more are known to follow, as the rest of a chain.
        held: More are being submitted just now.
        ended: The task ends with success.
    """

    known: int
    done: int = 0
    parts: float = 0.0
    to_come: int = 0
    held: bool = False
    ended: bool = False

    @property
    def is_several(self) -> bool:
        """Whether there is more than one member, as far as is known."""
        return self.known + self.to_come > 1


def canvas_progress(canvas: Canvas, shown: Progress | None) -> Progress:
    """Return what a task of several members shows: those done and the parts of those that report, of all.

    The share of what is done never becomes smaller than it was shown, though further members are published
    meanwhile, and reaches 1 only at the end.

    Args:
        canvas: The members.
        shown: What the task shows now.
    """
    if canvas.ended:
        return Progress(float(canvas.known), 0.0, float(canvas.known), CANVAS_UNIT)
    before = shown if shown is not None and is_of_canvas(shown) else Progress(0.0, 0.0, 0.0, CANVAS_UNIT)
    total = max(float(canvas.known + canvas.to_come), before.target)
    value = canvas.done + canvas.parts
    if canvas.done >= total:
        # All that is known is done and the task goes on, so that at least one is still to come.
        total = canvas.done + 1.0
    value = max(round(min(value, total - 1 + MOST_OF_ONE), _DIGITS), _held_up(before, total))
    return Progress(value, 0.0, total, CANVAS_UNIT)


def _held_up(before: Progress, total: float) -> float:
    """Return the value at which the share is as large as before; rounded up, so that it is never smaller."""
    if before.target in (0.0, total):
        return before.value
    scale = 10.0**_DIGITS
    return math.ceil(before.value / before.target * total * scale) / scale


def is_of_canvas(progress: Progress) -> bool:
    """Tell whether a progress was made by `canvas_progress`."""
    whole = progress.start == 0 and float(progress.target).is_integer()
    # Beyond the target only somebody who wrote the value alone.
    return progress.unit == CANVAS_UNIT and whole and 0 <= progress.value <= progress.target


def is_same(one: Progress, other: Progress) -> bool:
    """Tell whether two progresses are equal, but for the digits that a database may not keep."""
    pairs = ((one.value, other.value), (one.start, other.start), (one.target, other.target))
    return one.unit == other.unit and all(math.isclose(a, b, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE) for a, b in pairs)
