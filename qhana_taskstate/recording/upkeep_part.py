"""The upkeep that the background thread of a process takes part in, handed in by `wiring`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from ..facts import ExecutionKey, TaskRef


@dataclass(frozen=True, slots=True, kw_only=True)
class UpkeepPart:
    """What the thread of a process does beside its own work, and whom it leaves lost work to.

    Attributes:
        turn: Looks once for what no signal tells of.
        interval_seconds: Seconds to let pass between two turns.
        redelivery: After how long at the latest the broker delivers an unacknowledged message again.
        give_up: Ends an execution whose message was lost with its worker too often: its task, key, name, and how
            often.
        settle_own: Settles the executions whose rows name this process (host, process id, when it started) although
            they do not run in it. Its last argument tells whether one does, by its task and key.
    """

    turn: Callable[[], object]
    interval_seconds: float
    redelivery: timedelta
    give_up: Callable[[TaskRef, ExecutionKey, str, int], object]
    settle_own: Callable[[str, int, float | None, Callable[[TaskRef, ExecutionKey], bool]], object]
