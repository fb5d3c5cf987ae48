"""Writes facts of this process in short transactions: now or, while the database is away, later and in order."""

from __future__ import annotations

import logging
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from ..context.execution import Execution
from ..database.engine import Database
from ..database.faults import REFUSALS, passes
from ..database.sessions.scopes import Sessions
from ..errors import DatabaseUnavailableError
from ..fork import call_in_child
from ..settings.values import Settings
from ..store.script import Script
from .background_write import attempt_write
from .backlog import Backlog, Fact
from .exits.interruption import interruption_behind
from .pulse import Pulse
from .upkeep_part import UpkeepPart

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Pauses in seconds before a short transaction is tried again after a deadlock, a lost connection or a lock that
#: was not had.
_PAUSES = (0.05, 0.2, 0.5)

#: Seconds for which a plugin's task, or the caller of `TaskState`, waits for a short transaction.
_PATIENCE: Final = 2.0

#: Seconds that a process takes at its end for what waits for the database.
_FAREWELL_SECONDS: Final = 3.0

#: Of parent processes; kept, since closing them would speak on the parent's sockets.
_abandoned: Final[list[object]] = []


class Recorder(ABC):
    """Writes the facts of one process for one `TaskState`, and owns the thread that does so in the background.

    The thread is made when it is first needed.

    Args:
        database: Where to write.
        sessions: The sessions of the same `TaskState`.
        settings: Its settings.
        upkeep_part: What its thread takes part in.
    """

    def __init__(self, database: Database, sessions: Sessions, settings: Settings, upkeep_part: UpkeepPart) -> None:
        self.database = database
        self.sessions = sessions
        self.settings = settings
        self.upkeep_part = upkeep_part
        #: What waits for the database.
        self.backlog = Backlog(database, settings.keep_facts_seconds)
        #: Sends the message that wakes the deliveries; set by `wiring`.
        self.wake_deliveries: Callable[[], None] = lambda: None
        #: When an execution last began or ran here, by the monotonic clock.
        self.active_at = float("-inf")
        #: The process in which a Celery worker was started, if this is one.
        self.parent_pid = 0
        #: The entry of Celery's timer there that calls `catch_up`.
        self.catching_up: Any = None
        self._pulse: Pulse | None = None
        call_in_child(self._forget_parent)

    def _forget_parent(self) -> None:
        # Its thread is gone, its lock may be held for ever, and its connection is the parent's.
        _abandoned.append(self._pulse)
        self._pulse = None

    def write(
        self,
        work: Callable[[Connection], T],
        *,
        patience: float = _PATIENCE,
    ) -> T:
        """Run `work` in a short transaction; again if the database only stumbled.

        Args:
            work: Writes through the connection that it is given; it may be run several times. A script is sent in as
                few round trips as the driver allows.
            patience: Seconds after which it is not tried again, and for which each try waits for SQLite's write lock.

        Raises:
            DatabaseUnavailableError: If it cannot be reached after a few tries.
            sqlalchemy.exc.DBAPIError: If it refuses the work: at once if trying again cannot help, else after a few
                tries.
            BaseException: A time limit or a cancellation that struck meanwhile, also where the driver hides it.
        """
        in_flight = sys.exc_info()[1]
        deadline = time.monotonic() + patience
        for pause in (*_PAUSES, None):
            try:
                if isinstance(work, Script) and self.database.pipelines:
                    result: T = work.run(self.database)
                    return result
                with self.database.transaction(patience=patience) as connection:
                    return work(connection)
            except (DBAPIError, DatabaseUnavailableError) as exc:
                interruption = interruption_behind(exc, in_flight)
                if interruption is not None:
                    raise interruption from None
                if pause is None or not passes(exc) or time.monotonic() + pause > deadline:
                    raise
                logger.debug("trying again in %s s: %s", pause, type(exc).__name__)
                time.sleep(pause)
        raise AssertionError("the last try returns or raises")

    def record(self, fact: Fact) -> bool:
        """Write a fact now or, if the database is away or another one of the task waits, later and in order.

        Takes a few seconds at most, and nearly none once it is known that the database is away.

        Args:
            fact: What happened.

        Returns:
            Whether it is written.

        Raises:
            One of `REFUSALS`: If the database is there and refuses it.
        """
        if self.backlog.idle or not self._must_wait(fact):
            try:
                result = self.write(fact.write)
            except (SQLAlchemyError, DatabaseUnavailableError, *REFUSALS) as exc:
                if not self.backlog.note(exc) and not passes(exc):
                    plainer = fact.plainer()
                    if plainer is None:
                        raise
                    logger.warning(
                        "the database refuses a fact of task %s, which is recorded without what it refuses (%s): %r",
                        fact.task_id,
                        type(exc).__name__,
                        fact.told,
                    )
                    return self.record(plainer)
                logger.info("a fact of task %s waits: %s", fact.task_id, type(exc).__name__)
            else:
                fact.written(result)
                return True
        self.backlog.add(fact)
        if self.parent_pid != os.getpid():
            # The parent of a prefork pool must have no thread that talks to the database.
            self.pulse()
        return False

    def _must_wait(self, fact: Fact) -> bool:
        if not self._has_pulse():
            self.backlog.catch_up_if_due()
        return self.backlog.must_wait(fact.task_id)

    def _has_pulse(self) -> bool:
        return self._pulse is not None and self._pulse.alive

    def catch_up(self) -> None:
        """Write what waits, if that is possible now. For processes without a thread for it."""
        if self.backlog.away or len(self.backlog):
            self.backlog.catch_up_if_due()
            self.leave_nothing_open()

    def leave(self) -> None:
        """Write what waits, before this process ends; what cannot be written is logged whole."""
        self.backlog.finish(_FAREWELL_SECONDS)

    def leave_nothing_open(self) -> None:
        """Close what was opened here, in the parent of a prefork pool."""
        if self.makes_no_threads:
            # A child that is forked later must not inherit an open connection.
            self.database.close()

    def pulse(self) -> Pulse:
        """Return the thread of this process that renews leases; it is started if it does not run yet."""
        if self._pulse is None or not self._pulse.alive:
            self._pulse = Pulse(self)
        return self._pulse

    def serve_upkeep(self) -> None:
        """Let the thread of this process take part in the upkeep."""
        self.pulse().does_upkeep = True

    @property
    def makes_no_threads(self) -> bool:
        """Whether this is the parent of a prefork pool: a child that is forked while a thread works is broken."""
        return self.parent_pid == os.getpid() and not self._has_pulse()

    def owe(self) -> None:
        """Wake the deliveries soon, after a commit that filled the outbox. Waits for nothing."""
        if self.makes_no_threads:
            attempt_write(self.backlog, self.wake_deliveries)
        else:
            self.pulse().owe()

    def tell_at_exit(self, seconds: float) -> None:
        """Wait until the deliveries were woken of what this process owes, before it ends.

        Args:
            seconds: For how long at most; upkeep wakes them then.
        """
        if self._pulse is not None and self._pulse.alive:
            self._pulse.wake_now(seconds)

    def stop(self) -> None:
        """End the thread, and close the connections of this process; the next use begins anew."""
        if self._pulse is not None:
            # First: what the thread still holds would go back to a pool that is gone.
            self._pulse.stop()
        self.database.close()

    def must_not_write(self) -> bool:
        """Tell whether a write of ours would wait for an open write of the same thread (SQLite)."""
        return self.database.dialect == "sqlite" and self.sessions.open_write()

    @abstractmethod
    def flush(self, execution: Execution) -> None:
        """Write what an execution reported so far; does nothing if there is nothing."""

    @abstractmethod
    def end_unseen(self, execution: Execution) -> None:
        """Record the end of an execution that left the tracer and of whose end nothing more is known."""
