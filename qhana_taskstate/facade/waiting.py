"""`TaskState.wait`, and what goes with it: its form for event loops, and the look for lost work."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError

from ..errors import DatabaseUnavailableError, TaskNotFoundError
from ..models.task import ProcessingTask
from ..states import still_pending
from . import late
from .assembled import explained
from .naming import id_of, row_of
from .starting import Starting

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from ..reading.waiting.many import Waiters
    from ..reading.waiting.one import Glance
    from ..upkeep.settling import Settled

logger = logging.getLogger(__name__)


class Waiting(Starting):
    """Waits for tasks. Arguments as for `Assembled`."""

    _waiters: Waiters | None = None

    @explained
    def wait(
        self, task: ProcessingTask | int | str, timeout: float | None = None, *, or_step: bool = False
    ) -> ProcessingTask:
        """Wait until a task has ended.

        Args:
            task: The task or its id.
            timeout: Seconds to wait at most; None waits without limit.
            or_step: Also stop waiting when the task waits at a step for input.

        Returns:
            The task, read anew.

        Raises:
            TimeoutError: If it has not ended in time; names the status seen.
            TaskNotFoundError: If there is no such task.
        """
        task_id = id_of(task)
        upkeep = self.parts.upkeep
        late.wait.wait_for_end(
            self.database,
            task_id,
            timeout,
            or_step=or_step,
            named=task,
            look_after=lambda: self.upkeep(force=False),
            look_after_seconds=upkeep.interval_seconds,
        )
        return row_of(task_id)

    async def await_end(
        self, task: ProcessingTask | int | str, timeout: float | None = None, *, or_step: bool = False
    ) -> ProcessingTask:
        """Wait until a task has ended, without blocking the event loop: `task = await taskstate.await_end(task.id)`.

        However many wait in a process, one thread asks for all of them in one query; it lives while somebody waits.
        A wait that is cancelled costs nothing any more.

        Args:
            task: The task or its id.
            timeout: Seconds to wait at most; None waits without limit.
            or_step: Also stop waiting when the task waits at a step for input.

        Returns:
            The task with all that belongs to it, in no session: reading from it does not ask the database.

        Raises:
            TimeoutError: If it has not ended in time.
            TaskNotFoundError: If there is no such task.
            SchemaError: If the tables are missing or too old.
            DatabaseUnavailableError: If the database cannot be reached.
            TaskStateError: If the `TaskState` was closed meanwhile.
        """
        task_id = id_of(task)
        waiters = self._waiters
        if waiters is None:
            # The first one reads the settings and opens the database.
            waiters = await asyncio.to_thread(self._make_waiters)
        waited = asyncio.wrap_future(waiters.wait(task_id, or_step=or_step))
        try:
            seen = await asyncio.wait_for(waited, timeout)
        except TimeoutError:
            if timeout is None:
                raise
            raise still_pending(task_id, timeout) from None
        if seen is None:
            raise TaskNotFoundError(task)
        return await asyncio.to_thread(self._snapshot, task_id)

    async def astart(
        self, work: Any, *, task: ProcessingTask | int | str | None = None, **options: Any
    ) -> ProcessingTask:
        """Start a canvas as `start` does, without blocking the event loop: `await taskstate.astart(add.s(1, 2))`.

        It commits in a session of its own: what the host's session holds is neither seen nor committed. Once begun it
        is done to its end, also where the wait for it is cancelled.

        Args:
            work: As for `start`.
            task: The task to go on with, or its id; None makes a new one.
            options: All else that `start` takes.

        Returns:
            The task with all that belongs to it, in no session: reading from it does not ask the database.

        Raises:
            TaskStateError: As for `start`.
        """
        return await asyncio.to_thread(self._start_aside, work, None if task is None else id_of(task), options)

    def upkeep(self, *, force: bool = True) -> Settled | None:
        """Look once for work that was lost, and settle it; workers do so by themselves.

        Silence has to be seen for `taskstate_lost_after_seconds` before it counts, so that one call alone only
        notes who is silent; call it again and again, every few seconds.

        Args:
            force: Do it although another process does it already.

        Returns:
            What was settled; None if another process does it, or if the database cannot be reached now.
        """
        try:
            return self.parts.upkeep.tick(force=force)
        except (DBAPIError, DatabaseUnavailableError) as exc:
            logger.warning("upkeep could not look: %s", exc)
            return None

    def close(self) -> None:
        """End what this process does for it: its threads, and its connections.

        What waits to be written or delivered goes first, for a few seconds at most. No task may run here any more.
        Used again, it begins anew. A session or engine of the host is left alone.
        """
        waiters, self._waiters = self._waiters, None
        if waiters is not None:
            waiters.close()
        super().close()

    def _make_waiters(self) -> Waiters:
        seconds = self.parts.upkeep.interval_seconds
        with self._guard:
            if self._waiters is None:
                self._waiters = late.waiters.Waiters(self._glances, lambda: self.upkeep(force=False), seconds)
            return self._waiters

    def _glances(self, task_ids: Collection[int]) -> Mapping[int, Glance]:
        with self.sessions.aside(), self.sessions.explaining():
            return self.database.read(lambda connection: late.waiters.glances(connection, task_ids))

    def _start_aside(self, work: Any, task: int | None, options: dict[str, Any]) -> ProcessingTask:
        with self.sessions.aside():
            return _taken_out(self.start(work, task=task, **options))

    @explained
    def _snapshot(self, task_id: int) -> ProcessingTask:
        with self.sessions.aside():
            return _taken_out(row_of(task_id))


def _taken_out(task: ProcessingTask) -> ProcessingTask:
    """Load all that belongs to a task, and take it out of its session."""
    session = task._session()
    # Read so that it is loaded.
    _ = [getattr(part, "task", None) for part in (*task.outputs, *task.links, *task.subscriptions, *task.steps)]
    _ = task.task_log
    session.expunge(task)
    return task
