"""One round of upkeep: reads what is open, decides what was lost, settles it.

Silence alone is not death. An observer gives an execution up only if it saw the same lease for `lost_after`, by the
database's clock, while it could itself write; and then asks the process for proof of life if it can.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

from sqlalchemy.exc import DBAPIError

from ..database.dialects import database_time
from ..database.engine import Database
from ..database.tables.executions import execution_table
from ..errors import DatabaseUnavailableError
from ..facts import ExecutionKey, KeptMessage, StoredSuccess, TaskRef
from ..liveness import advisory_lock
from ..liveness.process import is_alive, this_host
from ..settings.values import Settings
from ..store.closing.holds import holds
from ..store.executions import waiting
from ..store.executions.heartbeats import Lease, running
from ..store.progress import history
from ..store.task_end.task_row import uncopied
from . import leader
from .deaths import LOOK_SECONDS, Deaths
from .decision import Observed, Turn, decide_chores, decide_turn
from .lookout import Finder, Lookout
from .pruning import Pruner
from .settling import Settled, Settler
from .silence import Silence

logger = logging.getLogger(__name__)


T = TypeVar("T")


#: Seconds between two rounds, as a share of the time after which silence counts; and how many rounds long the right
#: to do the chores lasts.
_ROUNDS, _LEAD = 6, 2.5


#: Seconds of one round that are spent on settling missing messages; the thread has other things to do.
_SETTLING_SECONDS = 1.0


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

    Attributes:
        redelivery: After how long at the latest the broker delivers an unacknowledged message again.
        settler: Settles what was found.
        wake_deliveries: Lets some worker call the subscribers that a call is due to now; set by `wiring`.
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
    ) -> None:
        self.redelivery = timedelta(seconds=redelivery_seconds)
        self.settler = Settler(
            database, settings, redelivery=self.redelivery, stored_success=stored_success, revoke=revoke, send=send
        )
        self._database = database
        self._settings = settings
        self._interval = settings.lost_after_seconds / _ROUNDS
        self._longest_pause = timedelta(seconds=self._interval * _LEAD)
        self._pruner = pruner
        self.wake_deliveries: Callable[[], None] = lambda: None
        self._owner = secrets.token_hex(8)
        self._deaths = Deaths()
        self._silent_leases: Silence[tuple[TaskRef, ExecutionKey]] = Silence(
            timedelta(seconds=settings.lost_after_seconds), self._longest_pause
        )
        self._silent_holds: Silence[str] = Silence(timedelta(seconds=settings.hold_seconds), self._longest_pause)
        self._lookout = Lookout(finder, settings)
        self._missing: deque[waiting.Waiting] = deque()

    @property
    def interval_seconds(self) -> float:
        """Seconds to let pass before the next round."""
        return min(LOOK_SECONDS, self._interval) if self._deaths.suspects else self._interval

    def tick(self, *, force: bool = False) -> Settled | None:
        """Do one round; one cheap query if another process does the chores, or if there are none.

        Args:
            force: Take the chores over from the process that does them.

        Returns:
            What was settled; None if another process does the chores.

        Raises:
            DatabaseUnavailableError: If the database cannot be reached.
            sqlalchemy.exc.DBAPIError: If it refuses the work.
        """
        seen = self._database.read(leader.glance)
        settled = Settled()
        if not seen.idle:
            self._settle_dead(seen.moment, settled)
        turn = decide_turn(seen, self._owner, takes_over=force, prunes=self._pruner.due)
        moment = self._lead(takes_over=force) if turn is Turn.LEAD else None
        if moment is None:
            self._forget()
            return settled if settled or turn is Turn.REST else None
        self._do_chores(moment, settled)
        return settled

    def _lead(self, *, takes_over: bool) -> datetime | None:
        """Take the right to do the chores, or renew it; returns now by the database's clock, None without the right.

        Writing is part of it: who cannot write must not take the silence of others for death. And it is committed
        first: a process that comes to a halt during its round must not keep others from theirs.
        """
        with self._database.transaction() as connection:
            moment = database_time(connection)
            leads = leader.lead(connection, self._owner, moment, self._interval * _LEAD)
        return moment if leads or takes_over else None

    def _do_chores(self, moment: datetime, settled: Settled) -> None:
        observed = self._observe(moment)
        silent = self._silent_leases.look({(one.ref, one.key): one.heartbeat_at for one in observed.leases}, moment)
        chores = decide_chores(
            observed,
            lost=self._unproven([one for one in observed.leases if (one.ref, one.key) in silent]),
            quiet=self._silent_holds.look({one.id: one.heartbeat_at for one in observed.holds}, moment),
            moment=moment,
            sought_for=self._sought_for(observed.went_back),
        )
        settler = self.settler
        self._each(chores.lost, lambda lease: settler.settle_lease(lease, moment, settled))
        self._each(chores.abandoned, lambda hold: settler.settle_hold(hold, settled))
        self._each(chores.given_up, lambda late: settler.give_up(late, settled))
        self._guarded(lambda: self._look_for_messages(moment, chores.sought, settled))
        self._each(chores.shown, lambda task_id: settler.show(task_id, settled))
        self._guarded(lambda: self._sample_progress(moment))
        self._guarded(lambda: self._prune(settled))
        # Last: what was settled owes calls too.
        self._guarded(self.wake_deliveries)

    def _observe(self, moment: datetime) -> Observed:
        with self._database.reading() as connection:
            return Observed(
                leases=running(connection),
                holds=holds(connection),
                overdue=waiting.overdue(connection, moment),
                went_back=waiting.went_back(connection, moment),
                uncopied=uncopied(connection),
            )

    def _settle_dead(self, moment: datetime, settled: Settled) -> None:
        """Settle what ran in processes of this machine that are dead; every observer does, also if another one leads.

        The leader may be on another machine, where nobody can ask for them.
        """
        with self._database.reading() as connection:
            leases = running(connection, execution_table.c.host == this_host())
        self._each(
            self._deaths.look(leases, moment, self._longest_pause),
            lambda lease: self.settler.settle_lease(lease, moment, settled, "its process is dead"),
        )

    def _forget(self) -> None:
        self._silent_leases.forget()
        self._silent_holds.forget()
        self._missing.clear()
        self._lookout.forget()

    def _unproven(self, leases: list[Lease]) -> list[Lease]:
        """Return the leases whose process gives no proof of life, neither here nor by its lock in the database."""
        unseen = [lease for lease in leases if not is_alive(lease.host, lease.pid, lease.pid_started)]
        if not unseen:
            return []
        keys = {id(lease): advisory_lock.key_of(lease.host, lease.pid, lease.pid_started) for lease in unseen}
        with self._database.reading() as connection:
            held = advisory_lock.held(connection, {key for key in keys.values() if key is not None})
        return [lease for lease in unseen if keys[id(lease)] not in held]

    def _sought_for(self, went_back: Sequence[waiting.Waiting]) -> timedelta | None:
        """Return for how long messages that went back are looked for; None if there are none, or no way to look."""
        tells = bool(went_back) and self._lookout.tells
        return timedelta(seconds=self._settings.publish_deadline_seconds) if tells else None

    def _look_for_messages(self, moment: datetime, sought: Sequence[waiting.Waiting], settled: Settled) -> None:
        found = self._lookout.turn(moment, self._waiting, sought)
        self._missing.extend(found.missing)
        not_missing = set(found.not_missing)
        still_there = [message for message in sought if message in not_missing]
        if still_there:
            self.settler.postpone(still_there, moment)
        until = time.monotonic() + _SETTLING_SECONDS
        while self._missing and time.monotonic() < until:
            # Whatever happens to this one, it is looked for anew if it stays.
            self.settler.settle_missing(self._missing.popleft(), settled)

    def _waiting(self, before: datetime, after: datetime | None, limit: int) -> list[waiting.Waiting]:
        with self._database.reading() as connection:
            return waiting.waiting(connection, before, after, limit)

    def _sample_progress(self, moment: datetime) -> None:
        with self._database.reading() as connection:
            shares = history.due(connection, moment)
        if shares:
            with self._database.transaction() as connection:
                history.add(connection, moment, shares)

    def _prune(self, settled: Settled) -> None:
        settled.pruned += self._pruner.turn()

    def _each(self, found: Iterable[T], settle: Callable[[T], None]) -> None:
        for one in found:
            self._guarded(lambda one=one: settle(one))  # type: ignore[misc]

    def _guarded(self, chore: Callable[[], None]) -> None:
        try:
            chore()
        except (DBAPIError, DatabaseUnavailableError) as exc:
            logger.info("upkeep tries again later: %s", type(exc).__name__)
