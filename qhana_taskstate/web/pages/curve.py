"""The progress of a task over time, as a drawing. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from ...reading.rows.views import TaskView
from ...store.progress.history import Sample

#: Size of the drawing in its own units.
_WIDTH: Final = 1000.0
_HEIGHT: Final = 100.0

#: Fewer points say nothing.
_LEAST_POINTS: Final = 4


@dataclass(frozen=True, slots=True)
class Curve:
    """A drawing, 1000 wide and 100 high.

    Attributes:
        trace: Path of the line.
        area: Path of what is below it.
    """

    trace: str
    area: str


def curve(task: TaskView, samples: Sequence[Sample], moment: datetime) -> Curve | None:
    """Draw the progress of a task from its start to its end, or to now; None where there is too little to draw.

    Args:
        task: The task.
        samples: Its samples, oldest first.
        moment: Now, aware.
    """
    if task.started_at is None or task.progress is None:
        return None
    end = task.finished_at or moment
    length = max((end - task.started_at).total_seconds(), 0.001)
    points = [(0.0, 0.0), *(((at - task.started_at).total_seconds() / length, share) for at, share in samples)]
    points.append((1.0, task.progress.share))
    if len(points) < _LEAST_POINTS:
        return None
    # Clocks of two machines may differ.
    drawn = [(min(1.0, max(0.0, x)) * _WIDTH, (1.0 - share) * _HEIGHT) for x, share in points]
    trace = " L".join(f"{x:.1f} {y:.1f}" for x, y in drawn)
    return Curve(f"M{trace}", f"M{trace} L{_WIDTH:.0f} {_HEIGHT:.0f} L0 {_HEIGHT:.0f} Z")
