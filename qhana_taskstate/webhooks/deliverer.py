"""The run of the deliveries: makes the calls that are due, and notes their results."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import datetime, timedelta
from functools import partial
from typing import Final, Protocol, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from ..database.dialects import database_time
from ..database.engine import Database
from ..database.faults import is_gone
from ..errors import DatabaseUnavailableError
from ..settings.values import Settings
from ..settings.webhook_values import AllowedNetworks
from . import claim, collect, hosts, settle
from .call import Call, make_call
from .http.answers import Verdict
from .http.client import Transport
from .waking import wake_rows

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Calls that one run makes at once, each in a thread of its own.
CALLS_AT_ONCE: Final = 8

#: After so many seconds a run goes on only until the calls that it had begun by then have ended. The next run makes the
#: rest; its message waits its turn in the queue, behind the work of others.
RUN_SECONDS: Final = 10.0

#: How many subscriptions are looked for at once.
_CANDIDATES: Final = 4 * CALLS_AT_ONCE

#: How often a run that waits for answers looks for further calls, in seconds.
_LOOK_SECONDS: Final = 0.2

#: For how long changes are collected before it is the turn of calls, in seconds: they may come faster.
_COLLECT_SECONDS: Final = 0.2

#: Beyond the time for a call: for its way into a thread and its result's way into the database, in seconds.
_MARGIN_SECONDS: Final = 15.0

#: After so many seconds a message that should wake the deliveries counts as lost.
_WAKE_SECONDS: Final = 10.0

#: For how long a run waits to write, in seconds: no plugin's task waits for it, and a result that is not noted means
#: that its call is made again. Less than the margin, so that a result is noted while its call is still the run's own.
_PATIENCE_SECONDS: Final = 10.0


class Writer(Protocol):
    """Runs `work` in a short transaction of our own; `patience` as for `ExecutionRecorder.write`."""

    def __call__(self, work: Callable[[Connection], T], *, patience: float = ...) -> T: ...


class Deliverer:
    """Makes the calls of one `TaskState`. One run at a time in a thread; several processes may run at once.

    Args:
        database: Where the deliveries are.
        write: Runs something that writes in a short transaction, again if the database only stumbled.
        settings: Settings of the same `TaskState`.
        send: Sends the message that lets some worker `run`, after a number of seconds.
    """

    def __init__(self, database: Database, write: Writer, settings: Settings, send: Callable[[float], None]) -> None:
        self._database = database
        self._writer = write
        self._settings = settings
        self._send = send
        #: What the database's clock said, and when by `time.monotonic()`.
        self._clock: tuple[datetime, float] | None = None
        self._transport = Transport(
            AllowedNetworks.parse(settings.webhook_allowed_networks), settings.webhook_timeout_seconds
        )

    @property
    def lease_seconds(self) -> float:
        """After how long the call of a process that does not come back is made by another one."""
        return self._settings.webhook_timeout_seconds + _MARGIN_SECONDS

    def run(self) -> int:
        """Make the calls that are due, until none is or the time of a run is over.

        Returns:
            How many calls were made; none where the setting `webhooks` is off.

        Raises:
            DatabaseUnavailableError: If the database cannot be reached; what was claimed is due again later.
            sqlalchemy.exc.DBAPIError: If it refuses the work.
        """
        if not self._settings.webhooks:
            return 0
        self._clock = None
        # First: what is owed after this needs a message of its own.
        self._write(wake_rows.note_woken)
        under_way: dict[Future[Verdict | None], Call] = {}
        try:
            made = self._make_calls(under_way)
        except (SQLAlchemyError, DatabaseUnavailableError):
            self._settle_after_a_fault(under_way)
            raise
        self._go_on_later()
        return made

    def _make_calls(self, under_way: dict[Future[Verdict | None], Call]) -> int:
        """Make the calls of a run, and return how many; `under_way` keeps those whose result is not noted yet."""
        made = 0
        ends = time.monotonic() + RUN_SECONDS
        candidates = _Candidates(self)
        in_time: set[Future[Verdict | None]] = set()
        with ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="qhana_taskstate-call") as threads:
            while True:
                # A call that hangs keeps the run going: until its answer the others get their turn here too.
                while len(under_way) < CALLS_AT_ONCE and (
                    (is_in_time := time.monotonic() < ends) or in_time & under_way.keys()
                ):
                    call = candidates.claim(Counter(call.host for call in under_way.values()))
                    if call is None:
                        break
                    future = threads.submit(self._make, call, time.monotonic())
                    under_way[future] = call
                    if is_in_time:
                        in_time.add(future)
                if not under_way:
                    return made
                done, _ = wait(under_way, timeout=_LOOK_SECONDS, return_when=FIRST_COMPLETED)
                for future in done:
                    self._settle(under_way[future], future.result())
                    del under_way[future]
                    made += 1

    def close(self) -> None:
        """Close the connections to receivers that are kept for further calls."""
        self._transport.close()

    def wake(self) -> None:
        """Let some worker `run` soon, unless a message that does so is on its way.

        Raises:
            DatabaseUnavailableError: If the database cannot be reached.
            sqlalchemy.exc.DBAPIError: If it refuses the work.
        """
        # Tries for a shorter time than a run does, since whoever commits waits for it.
        announce = partial(wake_rows.announce_wake, lost_after_seconds=_WAKE_SECONDS)
        if self._writer(self._dated(announce)):
            self._send(0.0)

    def wake_if_owed(self) -> None:
        """As `wake`, but only if there is something to do now; one cheap query if there is not."""
        if not self._settings.webhooks:
            return
        with self._database.reading() as connection:
            owed = claim.is_owed(connection, database_time(connection))
        if owed:
            self.wake()

    def collect(self, seconds: float) -> None:
        """Merge what changed into the deliveries, for about so many seconds at most: changes may come faster."""
        ends = time.monotonic() + seconds
        while self._write(collect.collect) and time.monotonic() < ends:
            pass

    def look(self, besides: Collection[int]) -> list[tuple[int, str]]:
        """Collect changes for a while, and return subscriptions to be called now and their hosts, besides some."""
        self.collect(_COLLECT_SECONDS)
        with self._database.reading() as connection:
            return claim.due(connection, self._moment(connection), limit=_CANDIDATES, besides=besides)

    def claim(self, subscription_id: int) -> Call | None:
        """Take the right to call a subscription, if it may be called now."""
        return self._write(
            lambda connection, moment: claim.claim(
                connection,
                subscription_id,
                moment=moment,
                lease_seconds=self.lease_seconds,
                error_word=self._settings.wire_error_status,
            )
        )

    def _make(self, call: Call, claimed: float) -> Verdict | None:
        """Make a call; in a thread, without the database."""
        if time.monotonic() - claimed > _MARGIN_SECONDS / 2:
            # The process stood still: by the time of the answer somebody else may make this call.
            return None
        return make_call(call, self._transport, self._settings)

    def _settle_after_a_fault(self, ended: Mapping[Future[Verdict | None], Call]) -> None:
        """Note what calls led to that ended while the run failed, as far as the database takes it: one not noted is
        made again."""
        for future, call in ended.items():
            try:
                self._settle(call, future.result())
            except (SQLAlchemyError, DatabaseUnavailableError) as exc:
                logger.info("the call of delivery %s will be made again: %s", call.delivery_id, type(exc).__name__)
                if is_gone(exc):
                    return

    def _settle(self, call: Call, verdict: Verdict | None) -> None:
        if verdict is None:
            return
        if verdict.kind in {"dead", "refused"}:
            told = (call.task_id, call.event, call.delivery_id, verdict.reason)
            logger.warning("webhook of task %s (%s, delivery %s) was given up: %s", *told)
        self._write(
            lambda connection, moment: settle.settle(
                connection,
                call,
                verdict,
                moment=moment,
                min_interval_seconds=self._settings.webhook_min_interval_seconds,
            )
        )

    def _go_on_later(self) -> None:
        """Send the message for what is due next, if that is soon; upkeep finds the rest."""
        seconds = self._write(partial(wake_rows.announce_next, lost_after_seconds=_WAKE_SECONDS))
        if seconds is not None:
            self._send(seconds)

    def _write(self, work: Callable[[Connection, datetime], T]) -> T:
        return self._writer(self._dated(work), patience=_PATIENCE_SECONDS)

    def _dated(self, work: Callable[[Connection, datetime], T]) -> Callable[[Connection], T]:
        """Let `work` be told the moment once its transaction has begun."""
        return lambda connection: work(connection, self._moment(connection))

    def _moment(self, connection: Connection) -> datetime:
        """Return this moment by the database's clock, which is asked once in a run."""
        clock = self._clock
        if clock is None or time.monotonic() - clock[1] > RUN_SECONDS:
            moment = database_time(connection)
            # Afterwards: however long the answer takes, nothing is ever noted for a moment that is still to come.
            clock = self._clock = (moment, time.monotonic())
        return clock[0] + timedelta(seconds=time.monotonic() - clock[1])


class _Candidates:
    """The subscriptions that one run tries to call next.

    Args:
        deliverer: Looks and claims.
    """

    def __init__(self, deliverer: Deliverer) -> None:
        self._deliverer = deliverer
        #: Hosts by subscription, the longest due first.
        self._found: dict[int, str] = {}
        self._looked = float("-inf")

    def claim(self, under_way: Mapping[str, int]) -> Call | None:
        """Claim the next call; None if there is none to make now.

        Args:
            under_way: How many calls of this run go to each host.
        """
        while True:
            call = self._claim_found(under_way)
            if call is not None:
                return call
            # Calls under way end soon enough for another look; without any this was the last one.
            if under_way and time.monotonic() - self._looked < _LOOK_SECONDS:
                return None
            self._looked = time.monotonic()
            found = dict(self._deliverer.look(self._found))
            if not found:
                return None
            self._found |= found

    def _claim_found(self, under_way: Mapping[str, int]) -> Call | None:
        refused: set[str] = set()
        for subscription_id, host in list(self._found.items()):
            if host in refused or under_way.get(host, 0) >= hosts.CALLS_PER_HOST:
                continue
            del self._found[subscription_id]
            call = self._deliverer.claim(subscription_id)
            if call is not None:
                return call
            # Most often others call the host; what is left of it is found again.
            refused.add(host)
        if refused:
            self._found = {known: host for known, host in self._found.items() if host not in refused}
        return None
