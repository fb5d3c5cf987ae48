"""What the close of an execution means for its task. Decides only; reads and writes nothing."""

from __future__ import annotations

from dataclasses import dataclass

from ...states import FAILED_STATES, ExecutionState, TaskStatus
from ..ending.remaining import Remaining


@dataclass(frozen=True, slots=True)
class Fails:
    """The task ends as ERROR, and its log says why."""


@dataclass(frozen=True, slots=True)
class Asks:
    """Whether the task has ended is to be seen from what is left of it."""


@dataclass(frozen=True, slots=True)
class Changes:
    """The task goes on, or has ended before: only reports count."""


_FAILS, _ASKS, _CHANGES = Fails(), Asks(), Changes()


def verdict_of(state: ExecutionState, *, closes: bool, has_ended: bool) -> Fails | Asks | Changes:
    """Tell what the close of an execution means for its task.

    Args:
        state: The closed state.
        closes: Whether this call closes it; it may have been closed before.
        has_ended: Whether the end of the task is decided already.
    """
    if not closes or has_ended:
        return _CHANGES
    # After a RETRY too: the next attempt often ends before the close of the one that published it.
    return _FAILS if state in FAILED_STATES else _ASKS


def shows_members(ended: TaskStatus | None, remaining: Remaining, *, counts_members: bool, reports: bool) -> bool:
    """Tell whether the members of a task are to be counted, to show how many of them are done.

    Args:
        ended: The end of the task, None if it goes on.
        remaining: What is left of it.
        counts_members: Whether the settings ask for it.
        reports: Whether the execution brings progress of its own.
    """
    return counts_members and (reports or (ended == TaskStatus.SUCCESS and remaining.several))
