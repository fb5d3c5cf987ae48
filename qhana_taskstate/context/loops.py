"""What an execution says of its progress: the values that it gave last, and the loops that it goes through."""

from __future__ import annotations

from typing import Final

from ..facts import Progress

#: Value, start, target and unit, as they were given.
Values = tuple[float, float, float, str]

#: What counts as said before the first report.
NOTHING: Final[Values] = (0.0, 0.0, 100.0, "%")


class Loop:
    """How far a loop has come. The loop only counts; the thread that writes the progress looks at it.

    Args:
        total: How many items there are, None if nobody knows.
        unit: What an item is.
        outer: The loop inside which this one runs.

    Attributes:
        begun: How many items were handed out.
        ended: Whether there are no more.
        over: Whether nobody goes through it any more.
        said: What `begun` was when a report in its body said something else, which counts until the next item.
    """

    __slots__ = ("_outer", "_total", "_unit", "begun", "ended", "over", "said")

    def __init__(self, total: float | None, unit: str, outer: Loop | None) -> None:
        self._total, self._unit, self._outer = total, unit, outer
        self.begun, self.said = 0, -1
        self.ended = self.over = False

    @property
    def speaks(self) -> bool:
        """Whether it says how far the work has come, rather than a report in its body."""
        return self.said != self.begun

    @property
    def outer(self) -> Loop | None:
        """The loop inside which it runs and that goes on."""
        outer = self._outer
        while outer is not None and outer.over:
            outer = outer._outer
        return outer

    def values(self) -> Values:
        """Return the values of this moment; the target of an unknown number moves along."""
        ended, begun = self.ended, self.begun
        # The last one that was handed out is still being worked on.
        done = begun if ended else max(begun - 1, 0)
        target = self._total
        if target is None:
            target = done if ended else done + 1
        return done, 0.0, target, self._unit


def progress_of(values: Values) -> Progress:
    """Return what was reported as a value of its own."""
    value, start, target, unit = values
    return Progress(float(value), float(start), float(target), unit)
