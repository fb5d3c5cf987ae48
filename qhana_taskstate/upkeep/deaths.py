"""Executions whose process on this machine is dead.

No silence need be waited for, only the parent of the dead process. The parent of a pool child sees its end within five
seconds (celery 5.7: 0.02 to 4.7 s), and knows more: that a time limit or somebody killed it, or that it is tried again.
A worker that is gone as a whole has no such parent.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from ..facts import ExecutionKey, TaskRef
from ..liveness.process import is_gone
from ..store.executions.heartbeats import Lease

#: For how long a process has to be seen dead.
_PATIENCE: Final = timedelta(seconds=5)

#: Seconds to let pass between two looks while one is.
LOOK_SECONDS: Final = 1.0

_Dead = tuple[TaskRef, ExecutionKey, datetime]


class Deaths:
    """What one observer has seen of dead processes on its machine."""

    def __init__(self) -> None:
        self._since: dict[_Dead, datetime] = {}
        self._last: datetime | None = None

    @property
    def suspects(self) -> bool:
        """Whether a process was seen dead whose executions are not settled yet."""
        return bool(self._since)

    def look(self, leases: list[Lease], moment: datetime, longest_pause: timedelta) -> list[Lease]:
        """Return the leases whose process was seen dead for long enough.

        Args:
            leases: Of executions that run on this machine.
            moment: Now, by the database's clock.
            longest_pause: After a longer pause than this it is begun anew: while the database was away, nobody could
                tell more.
        """
        if self._last is not None and moment - self._last > longest_pause:
            self._since.clear()
        self._last = moment
        dead = {
            (lease.ref, lease.key, lease.heartbeat_at): lease
            for lease in leases
            if is_gone(lease.host, lease.pid, lease.pid_started)
        }
        self._since = {one: self._since.get(one, moment) for one in dead}
        return [dead[one] for one, since in self._since.items() if moment - since >= _PATIENCE]
