"""Finds work that was lost without a signal, and settles it; brings rows up to date that were locked.

Silence alone is not death. An observer gives an execution up only if it saw the same lease for `lost_after`, by the
database's clock, while it could itself write; and then asks the process for proof of life if it can.
"""

from __future__ import annotations

import dataclasses
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from .. import facts
from ..clock import now
from ..database.dialects import database_time
from ..database.engine import Database
from ..database.tables.executions import execution_table
from ..errors import DatabaseUnavailableError
from ..facts import ExecutionKey, KeptMessage, StoredSuccess, TaskRef
from ..liveness import advisory_lock
from ..liveness.process import is_alive, this_host
from ..settings.values import Settings
from ..states import ExecutionState
from ..store.closing import close
from ..store.closing import holds as holds_closing
from ..store.closing.holds import Hold, settle_hold
from ..store.closing.losses import hand_back, postpone, settle_lost, settle_missing
from ..store.ending import showing
from ..store.ending.outcome import Outcome
from ..store.executions import lookup, registration, waiting
from ..store.executions.leases import Lease, running, running_in
from ..store.progress import history
from . import leader
from .deaths import LOOK_SECONDS, Deaths
from .lost_messages import Finder, Lookout
from .pruning import Pruner

logger = logging.getLogger(__name__)


T = TypeVar("T")


#: Seconds between two looks, as a share of the time after which silence counts; and how many looks long the right
#: to look lasts.
_LOOKS, _LEAD = 6, 2.5


#: Seconds of one look that are spent on settling missing messages; the thread has other things to do.
_SETTLING_SECONDS = 1.0


@dataclass(slots=True)
class _Note:
    """A lease as it was seen, and since when it has not changed."""

    lease: datetime
    since: datetime


@dataclass(slots=True)
class Settled:
    """What one look led to, in numbers of executions, submissions and rows."""

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


class Upkeep:
    """The chores of one process. Many processes may have one; one at a time does the chores.

    Args:
        database: Where the rows are.
        settings: Settings of the same `TaskState`.
        redelivery_seconds: After how long at the latest the broker delivers an unacknowledged message again.
        stored_success: Gives the success that Celery's result backend holds for a Celery id, None if it holds none.
        revoke: Asks the workers to drop a message.
        finder: Where messages can be looked for.
        send: Sends a kept message of a task to a queue again.
        pruner: Removes old tasks.
        wake_deliveries: Lets some worker tell subscribers, if somebody is to be told now.
    """

    def __init__(
        self,
        database: Database,
        settings: Settings,
        *,
        redelivery_seconds: float,
        stored_success: Callable[[str], StoredSuccess | None],
        revoke: Callable[[str], None],
        finder: Finder,
        send: Callable[[KeptMessage, TaskRef, str], None],
        pruner: Pruner,
        wake_deliveries: Callable[[], None],
    ) -> None:
        self._database = database
        self._settings = settings
        self._redelivery = timedelta(seconds=redelivery_seconds)
        self._stored_success = stored_success
        self._revoke = revoke
        self._send = send
        self._pruner = pruner
        self._lookout = Lookout(finder, settings)
        self._missing: deque[waiting.Waiting] = deque()
        self._wake_deliveries = wake_deliveries
        self._owner = secrets.token_hex(8)
        self._deaths = Deaths()
        self._notes: dict[Hashable, _Note] = {}
        self._last: datetime | None = None

    @property
    def redelivery(self) -> timedelta:
        """After how long at the latest the broker delivers an unacknowledged message again."""
        return self._redelivery

    @property
    def interval_seconds(self) -> float:
        """Seconds to let pass before the next look."""
        return min(LOOK_SECONDS, self._interval) if self._deaths.suspects else self._interval

    @property
    def _interval(self) -> float:
        return self._settings.lost_after_seconds / _LOOKS

    def tick(self, *, force: bool = False) -> Settled | None:
        """Look once; one cheap query if somebody else does the chores, or if there are none.

        Args:
            force: Take the chores over from whoever does them.

        Returns:
            What was settled; None if somebody else does the chores.

        Raises:
            DatabaseUnavailableError: If the database cannot be reached.
            sqlalchemy.exc.DBAPIError: If it refuses the work.
        """
        seen = self._database.read(leader.glance)
        died = Settled()
        if not seen.idle:
            self._settle_dead(seen.moment, died)
        if not force and seen.until is not None and seen.owner != self._owner and seen.until > seen.moment:
            self._forget()
            return died or None
        if seen.idle and not self._pruner.due:
            self._forget()
            return Settled()
        with self._database.transaction() as connection:
            # Writing is part of the look: who cannot write must not take the silence of others for death.
            moment = database_time(connection)
            if not leader.lead(connection, self._owner, moment, self._interval * _LEAD) and not force:
                self._forget()
                return None
        # Committed first: who comes to a halt during the look must not keep others from looking.
        with self._database.reading() as connection:
            leases = running(connection)
            holds = holds_closing.holds(connection)
            overdue = waiting.overdue(connection, moment)
            went_back = waiting.went_back(connection, moment)
            uncopied = showing.uncopied(connection)
        if self._last is not None and moment - self._last > self._longest_pause:
            self._notes.clear()
        self._last = moment
        settled = died
        silent = self._silent({(lease.ref, lease.key): lease.heartbeat_at for lease in leases}, moment, "lease")
        for lease in self._unproven([lease for lease in leases if (lease.ref, lease.key) in silent]):
            self._guarded(settled, lambda lease=lease: self._settle(lease, moment, settled))  # type: ignore[misc]
        quiet = self._silent({hold.id: hold.heartbeat_at for hold in holds}, moment, "hold")
        for hold in holds:
            if hold.id in quiet:
                self._guarded(settled, lambda hold=hold: self._abandon(hold, settled))  # type: ignore[misc]
        handed_back = [message for message in went_back if self._may_come(message, moment)]
        given_up = [message for message in went_back if not self._may_come(message, moment)]
        for late in [*overdue, *given_up]:
            self._guarded(settled, lambda late=late: self._give_up(late, settled))  # type: ignore[misc]
        self._guarded(settled, lambda: self._look_for_messages(moment, handed_back, settled))
        for task_id in uncopied:
            self._guarded(settled, lambda task_id=task_id: self._show(task_id, settled))  # type: ignore[misc]
        self._guarded(settled, lambda: self._sample_progress(moment))
        self._guarded(settled, lambda: self._prune(settled))
        # Last: what was settled owes calls too.
        self._guarded(settled, self._wake_deliveries)
        return settled

    def _sample_progress(self, moment: datetime) -> None:
        with self._database.reading() as connection:
            shares = history.due(connection, moment)
        if shares:
            with self._database.transaction() as connection:
                history.add(connection, moment, shares)

    @property
    def _longest_pause(self) -> timedelta:
        return timedelta(seconds=self._interval * _LEAD)

    def _settle_dead(self, moment: datetime, settled: Settled) -> None:
        """Settle what ran in processes of this machine that are dead; every observer does, also if another one leads.

        The leader may be on another machine, where nobody can ask for them.
        """
        with self._database.reading() as connection:
            leases = running(connection, execution_table.c.host == this_host())
        for lease in self._deaths.look(leases, moment, self._longest_pause):
            self._guarded(
                settled,
                lambda lease=lease: self._settle(lease, moment, settled, "its process is dead"),  # type: ignore[misc]
            )

    def settle_own(
        self, host: str, pid: int, started: float | None, runs: Callable[[TaskRef, ExecutionKey], bool]
    ) -> int:
        """Settle executions that are said to run in this process, and do not: only the process itself can tell.

        Its life is no proof of theirs. So whatever interrupted the end of one, it is settled `lost_after` later.

        Args:
            host: What `processes.this_host` says.
            pid: The id of this process.
            started: What `processes.started_at` says of it.
            runs: Tells of an execution whether it goes on here, or its end waits here to be written.

        Returns:
            How many were settled.

        Raises:
            DatabaseUnavailableError: If the database cannot be reached.
            sqlalchemy.exc.DBAPIError: If it refuses the work.
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
                self._settle(lease, moment, settled, "its process lives, but does not run it any more")
        return settled.lost + settled.handed_back

    def _forget(self) -> None:
        self._notes.clear()
        self._last = None
        self._missing.clear()
        self._lookout.forget()

    def _silent(self, leases: dict[Hashable, datetime], moment: datetime, kind: str) -> set[Hashable]:
        """Return those whose lease has not changed for long enough, and remember the others."""
        limit = self._settings.lost_after_seconds if kind == "lease" else self._settings.hold_seconds
        silent: set[Hashable] = set()
        for key, lease in leases.items():
            note = self._notes.get((kind, key))
            if note is None or note.lease != lease:
                self._notes[(kind, key)] = _Note(lease, moment)
            elif moment - note.since >= timedelta(seconds=limit):
                silent.add(key)
        for noted in [noted for noted in self._notes if noted[0] == kind and noted[1] not in leases]:  # type: ignore[index]
            del self._notes[noted]
        return silent

    def _unproven(self, leases: list[Lease]) -> list[Lease]:
        """Return the leases whose process gives no proof of life, neither here nor by its lock in the database."""
        unseen = [lease for lease in leases if not is_alive(lease.host, lease.pid, lease.pid_started)]
        if not unseen:
            return []
        keys = {id(lease): advisory_lock.key_of(lease.host, lease.pid, lease.pid_started) for lease in unseen}
        with self._database.reading() as connection:
            held = advisory_lock.held(connection, {key for key in keys.values() if key is not None})
        return [lease for lease in unseen if keys[id(lease)] not in held]

    def _guarded(self, settled: Settled, chore: Callable[[], None]) -> None:
        try:
            chore()
        except (DBAPIError, DatabaseUnavailableError) as exc:
            logger.info("upkeep tries again later: %s", type(exc).__name__)

    def _settle(self, lease: Lease, moment: datetime, settled: Settled, why: str = "") -> None:
        silence = why or f"no sign of life for {self._settings.lost_after_seconds:g} s"
        who = f"{lease.worker or 'its worker'} (process {lease.pid})"
        if lease.acks_late:
            deadline = moment + self._redelivery
            with self._database.transaction() as connection:
                losses = hand_back(
                    connection, lease.ref, lease.key, deadline=deadline, lost=True, heartbeat_at=lease.heartbeat_at
                )
            if losses is None:
                return
            settled.handed_back += 1
            logger.warning("%s was lost with %s; its message will be delivered again", lease.name, who)
            if losses > self._settings.max_redeliveries:
                self.give_up_poison(lease.ref, lease.key, lease.name, losses)
            return
        if self._has_succeeded(lease):
            closing = close.Closing(key=lease.key, name=lease.name, state=ExecutionState.SUCCESS)
            outcome = self._write(lambda connection: close.close(connection, lease.ref, closing))
        else:
            failure = facts.Failure(type="WorkerLostError", message=f"{who} was lost while it ran: {silence}")
            outcome = self._write(lambda connection: settle_lost(connection, lease, failure))
        if outcome.changed:
            settled.lost += 1
            logger.warning("%s was lost with %s: %s", lease.name, who, silence)
        self._finish(lease.ref.task_id, outcome)

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
        failure = facts.Failure(
            type="WorkerLostError", message=f"it lost its worker {losses} times and is not tried again"
        )
        closing = close.Closing(key=key, name=name, state=ExecutionState.LOST, failure=failure)
        outcome = self._write(lambda connection: close.close(connection, ref, closing))
        self._finish(ref.task_id, outcome)
        self._revoke(key.celery_id)

    def _abandon(self, hold: Hold, settled: Settled) -> None:
        outcome = self._write(lambda connection: settle_hold(connection, hold))
        settled.abandoned += outcome.changed
        self._finish(hold.task_id, outcome)

    def _may_come(self, message: waiting.Waiting, moment: datetime) -> bool:
        """Tell whether a message that went back to the broker may still wait there, so that it is to be looked for."""
        given_up = registration.later(message.published_at, message.eta) + timedelta(
            seconds=self._settings.publish_deadline_seconds
        )
        return self._lookout.tells and moment < given_up

    def _give_up(self, late: waiting.Overdue | waiting.Waiting, settled: Settled) -> None:
        failure = facts.Failure(
            type="MessageLostError",
            message="nobody began it before its deadline; it expired in the queue, or its message was lost",
        )
        closing = close.Closing(key=late.key, name=late.name, state=ExecutionState.LOST, failure=failure)
        outcome = self._write(lambda connection: close.close(connection, late.ref, closing))
        settled.overdue += outcome.changed
        self._finish(late.ref.task_id, outcome)

    def _look_for_messages(self, moment: datetime, handed_back: list[waiting.Waiting], settled: Settled) -> None:
        found = self._lookout.turn(moment, self._waiting, handed_back)
        self._missing.extend(found.missing)
        not_missing = set(found.not_missing)
        still_there = [message for message in handed_back if message in not_missing]
        if still_there:
            deadline = moment + self._redelivery
            self._write(lambda connection: postpone(connection, still_there, deadline))
        until = time.monotonic() + _SETTLING_SECONDS
        while self._missing and time.monotonic() < until:
            # Whatever happens to this one, it is looked for anew if it stays.
            self._lose(self._missing.popleft(), settled)

    def _waiting(self, before: datetime, after: datetime | None, limit: int) -> list[waiting.Waiting]:
        with self._database.reading() as connection:
            return waiting.waiting(connection, before, after, limit)

    def _lose(self, missing: waiting.Waiting, settled: Settled) -> None:
        failure = facts.Failure(
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

    def _prune(self, settled: Settled) -> None:
        settled.pruned += self._pruner.turn()

    def _show(self, task_id: int, settled: Settled) -> None:
        settled.shown += self._write(lambda connection: showing.show(connection, task_id))

    def _finish(self, task_id: int, outcome: Outcome) -> None:
        if not outcome.shown:
            self._write(lambda connection: showing.show(connection, task_id))

    def _write(self, work: Callable[[Connection], T]) -> T:
        with self._database.transaction() as connection:
            return work(connection)
