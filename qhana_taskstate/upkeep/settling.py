"""Settles what a round of upkeep found, each in a transaction of its own."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from sqlalchemy import Connection

from ..clock import now
from ..database.dialects import database_time
from ..database.engine import Database
from ..facts import ExecutionKey, Failure, KeptMessage, StoredSuccess, TaskRef
from ..settings.values import Settings
from ..states import ExecutionState
from ..store.closing.close import Closing, close
from ..store.closing.holds import Hold, settle_hold
from ..store.closing.losses import hand_back, postpone, settle_lost, settle_missing
from ..store.executions import lookup
from ..store.executions.heartbeats import Lease, running_in
from ..store.executions.waiting import Overdue, Waiting
from ..store.task_end.outcome import Outcome
from ..store.task_end.task_row import show

logger = logging.getLogger(__name__)


T = TypeVar("T")


@dataclass(slots=True)
class Settled:
    """What one round led to, in numbers of executions, submissions and rows."""

    lost: int = 0
    handed_back: int = 0
    overdue: int = 0
    abandoned: int = 0
    shown: int = 0
    missing: int = 0
    resent: int = 0
    pruned: int = 0

    def __bool__(self) -> bool:
        return any(dataclasses.astuple(self))


class Settler:
    """Writes what upkeep found out; each method commits, and counts in the `Settled` that it is given.

    Each of them raises `DatabaseUnavailableError` if the database cannot be reached, and `sqlalchemy.exc.DBAPIError`
    if it refuses the work.

    Args:
        database: Where the rows are.
        settings: Settings of the same `TaskState`.
        redelivery: After how long at the latest the broker delivers an unacknowledged message again.
        stored_success: Gives the success that Celery's result backend holds for a Celery id, None if it holds none.
        revoke: Asks the workers to drop a message.
        send: Sends a kept message of a task to a queue again.
    """

    def __init__(
        self,
        database: Database,
        settings: Settings,
        *,
        redelivery: timedelta,
        stored_success: Callable[[str], StoredSuccess | None],
        revoke: Callable[[str], None],
        send: Callable[[KeptMessage, TaskRef, str], None],
    ) -> None:
        self._database = database
        self._settings = settings
        self._redelivery = redelivery
        self._stored_success = stored_success
        self._revoke = revoke
        self._send = send

    def settle_own(
        self, host: str, pid: int, started: float | None, runs: Callable[[TaskRef, ExecutionKey], bool]
    ) -> int:
        """Settle executions that are said to run in this process, and do not: only the process itself can tell.

        That the process is alive proves nothing about them. So whatever interrupted the end of one, it is settled
        `lost_after` later.

        Args:
            host: What `process.this_host` says.
            pid: The id of this process.
            started: What `process.started_at` says of it.
            runs: Tells of an execution whether it goes on here, or its end waits here to be written.

        Returns:
            How many were settled.
        """
        if started is None:
            return 0
        silent_since = now() - timedelta(seconds=self._settings.lost_after_seconds)
        with self._database.reading() as connection:
            leases = running_in(connection, host, pid, started, silent_since)
            moment = database_time(connection) if leases else silent_since
        settled = Settled()
        for lease in leases:
            if not runs(lease.ref, lease.key):
                self.settle_lease(lease, moment, settled, "its process lives, but does not run it any more")
        return settled.lost + settled.handed_back

    def settle_lease(self, lease: Lease, moment: datetime, settled: Settled, why: str = "") -> None:
        """Settle an execution that lost its worker.

        Args:
            lease: The lease that ran out; nothing happens if it was renewed since.
            moment: Now, by the database's clock.
            settled: Where to count.
            why: How its worker is known to be lost; by default because it gave no sign of life.
        """
        if lease.acks_late:
            self._hand_back(lease, moment, settled)
            return
        who = _worker_of(lease)
        silence = why or f"no sign of life for {self._settings.lost_after_seconds:g} s"
        if self._has_succeeded(lease):
            closing = Closing(key=lease.key, name=lease.name, state=ExecutionState.SUCCESS)
            outcome = self._write(lambda connection: close(connection, lease.ref, closing))
        else:
            failure = Failure(type="WorkerLostError", message=f"{who} was lost while it ran: {silence}")
            outcome = self._write(lambda connection: settle_lost(connection, lease, failure))
        if outcome.changed:
            settled.lost += 1
            logger.warning("%s was lost with %s: %s", lease.name, who, silence)
        self._finish(lease.ref.task_id, outcome)

    def _hand_back(self, lease: Lease, moment: datetime, settled: Settled) -> None:
        deadline = moment + self._redelivery
        losses = self._write(
            lambda connection: hand_back(
                connection, lease.ref, lease.key, deadline=deadline, lost=True, heartbeat_at=lease.heartbeat_at
            )
        )
        if losses is None:
            return
        settled.handed_back += 1
        logger.warning("%s was lost with %s; its message will be delivered again", lease.name, _worker_of(lease))
        if losses > self._settings.max_redeliveries:
            self.give_up_poison(lease.ref, lease.key, lease.name, losses)

    def _has_succeeded(self, lease: Lease) -> bool:
        """Tell whether a lost execution is known to have succeeded, and all that it sent is known too.

        It sends what follows before its success is stored, and records it afterwards: what is not known may wait in a
        queue, and the task must not end as SUCCESS before that.
        """
        stored = self._stored_success(lease.key.celery_id)
        if stored is None:
            return False
        with self._database.reading() as connection:
            known, children = lookup.known_messages(connection, lease.ref.task_id, lease.key.celery_id)
        return stored.sent <= known and (not stored.in_group or bool(children - stored.sent))

    def give_up_poison(self, ref: TaskRef, key: ExecutionKey, name: str, losses: int) -> None:
        """End an execution whose message has killed its worker too often."""
        failure = Failure(type="WorkerLostError", message=f"it lost its worker {losses} times and is not tried again")
        self._close_as_lost(ref, key, name, failure)
        self._revoke(key.celery_id)

    def settle_hold(self, hold: Hold, settled: Settled) -> None:
        """End the task of a submission whose client died."""
        outcome = self._write(lambda connection: settle_hold(connection, hold))
        settled.abandoned += outcome.changed
        self._finish(hold.task_id, outcome)

    def give_up(self, late: Overdue | Waiting, settled: Settled) -> None:
        """End an execution that nobody began before its deadline."""
        failure = Failure(
            type="MessageLostError",
            message="nobody began it before its deadline; it expired in the queue, or its message was lost",
        )
        settled.overdue += self._close_as_lost(late.ref, late.key, late.name, failure)

    def postpone(self, waiting: Iterable[Waiting], moment: datetime) -> None:
        """Give messages that went back to the broker, and are still there, time until they are delivered again."""
        self._write(lambda connection: postpone(connection, waiting, moment + self._redelivery))

    def settle_missing(self, missing: Waiting, settled: Settled) -> None:
        """Send a message again that is nowhere, or end its execution if it was not kept or sent too often."""
        failure = Failure(
            type="MessageLostError",
            message=f"its message is neither in the queue {missing.queue!r} nor with a worker any more; the broker "
            "lost its data, or the queue was purged",
        )
        outcome, message = self._write(
            lambda connection: settle_missing(
                connection,
                missing,
                failure,
                most_resends=self._settings.max_redeliveries,
                deadline_seconds=self._settings.publish_deadline_seconds,
            )
        )
        if message is None:
            settled.missing += outcome.changed
            if outcome.changed:
                logger.warning("%s[%s] was lost: %s", missing.name, missing.key.celery_id, failure.message)
            self._finish(missing.ref.task_id, outcome)
            return
        self._send(message, missing.ref, missing.queue)
        settled.resent += 1
        logger.warning("%s[%s] was lost by the broker and sent again", missing.name, missing.key.celery_id)

    def show(self, task_id: int, settled: Settled) -> None:
        """Copy the end of a task to its `ProcessingTask` row."""
        settled.shown += self._write(lambda connection: show(connection, task_id))

    def _close_as_lost(self, ref: TaskRef, key: ExecutionKey, name: str, failure: Failure) -> bool:
        """Close an execution as LOST; returns whether it was open."""
        closing = Closing(key=key, name=name, state=ExecutionState.LOST, failure=failure)
        outcome = self._write(lambda connection: close(connection, ref, closing))
        self._finish(ref.task_id, outcome)
        return outcome.changed

    def _finish(self, task_id: int, outcome: Outcome) -> None:
        if not outcome.shown:
            self._write(lambda connection: show(connection, task_id))

    def _write(self, work: Callable[[Connection], T]) -> T:
        with self._database.transaction() as connection:
            return work(connection)


def _worker_of(lease: Lease) -> str:
    return f"{lease.worker or 'its worker'} (process {lease.pid})"
