"""What a write led to, as a value: the end of a task, what is open, what is shown."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a write led to.

    Attributes:
        changed: Whether it changed anything.
        ended: Status with which the task ended by it, None if it did not.
        members_open: Whether other executions of the task were still open.
        shown: Whether the `ProcessingTask` row shows it; False if a plugin holds that row.
    """

    changed: bool = False
    ended: str | None = None
    members_open: bool = False
    shown: bool = True
