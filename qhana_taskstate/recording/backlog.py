"""Facts that wait in memory while the database is away, and are written in order when it is back. One a process."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from ..database import schema as database_schema
from ..database.engine import Database
from ..database.faults import REFUSALS, is_gone, passes
from ..errors import DatabaseUnavailableError, SchemaError
from ..fork import call_in_child

logger = logging.getLogger(__name__)

#: Seconds between two tries of a process that has no thread for it.
_PAUSE_SECONDS: Final = 1.0

#: Seconds between two looks whether the tables are there.
_SCHEMA_PAUSE_SECONDS: Final = 5.0

#: Seconds between two messages that the database is away: a standby answers questions, and then refuses to write.
_TELL_SECONDS: Final = 60.0


@dataclass(eq=False, slots=True)
class Fact:
    """Something that happened and belongs into the database.

    Attributes:
        task_id: The task that it is about. Facts of one task are written in the order in which they came.
        told: What it says, logged whole if it is given up.
        write: Writes it through a connection; may be called several times.
        written: Called once with what `write` returned, after the commit.
        instead: What is written in its place once it is given up; never given up itself.
        plainer: Makes what is written in its place if the database is there and refuses its values; None where
            nothing plainer is left.
        since: When it happened, by the monotonic clock.
    """

    task_id: int
    told: object
    write: Callable[[Connection], Any]
    written: Callable[[Any], None] = lambda _: None
    instead: Fact | None = None
    plainer: Callable[[], Fact | None] = lambda: None
    since: float = field(default_factory=time.monotonic)


class Backlog:
    """What waits in this process for its database.

    Args:
        database: Where facts go.
        keep_seconds: How long a fact is kept; then only that its execution ended is still recorded.
    """

    def __init__(self, database: Database, keep_seconds: float) -> None:
        self._database = database
        self._keep_seconds = keep_seconds
        self._facts: deque[Fact] = deque()
        self._tasks: Counter[int] = Counter()
        self._guard = threading.Lock()
        self._writing = threading.Lock()
        #: Whether the database could not be reached, or lacked the tables, when it was last tried.
        self.away = False
        self._tried = 0.0
        self._told = -_TELL_SECONDS
        self._lacks_schema = False
        call_in_child(self._forget_parent)

    def __len__(self) -> int:
        return len(self._facts)

    @property
    def idle(self) -> bool:
        """Whether nothing waits and the database is there, as far as is known."""
        return not (self.away or self._facts)

    def must_wait(self, task_id: int) -> bool:
        """Tell whether a new fact of a task has to wait: behind others of the task, or for the database."""
        return self.away or bool(self._tasks[task_id])

    def add(self, fact: Fact) -> None:
        """Keep a fact until it is written."""
        with self._guard:
            self._facts.append(fact)
            self._tasks[fact.task_id] += 1

    def note(self, exc: BaseException) -> bool:
        """Note what a try led to; the database is away if it could not be reached, or lacks the tables.

        Returns:
            Whether it is away, so that trying again later helps.
        """
        if not is_gone(exc):
            return self._note_if_schema_is_missing(exc)
        self._tried = time.monotonic()
        self.away = True
        if self._tried - self._told >= _TELL_SECONDS:
            self._told = self._tried
            logger.warning(
                "the database %s is away; what this process has to say waits until the database is back, for %g s at "
                "most: %s",
                self._database.name,
                self._keep_seconds,
                type(exc).__name__,
            )
        return True

    def _note_if_schema_is_missing(self, exc: BaseException) -> bool:
        if not isinstance(exc, (DBAPIError, SchemaError)):
            return False
        try:
            database_schema.check(self._database)
        except SchemaError as found:
            self.note_missing_schema(found)
        except (DBAPIError, DatabaseUnavailableError):
            return False
        return self._lacks_schema

    def note_missing_schema(self, exc: SchemaError) -> None:
        """Note that the tables are missing or too old, and say so once."""
        self._tried = time.monotonic()
        if not self._lacks_schema:
            logger.critical(
                "task states cannot be recorded: %s. It is looked for every %g s; what happens meanwhile waits, for "
                "%g s at most",
                exc,
                _SCHEMA_PAUSE_SECONDS,
                self._keep_seconds,
            )
        self.away = self._lacks_schema = True

    def catch_up_if_due(self) -> None:
        """As `catch_up`, but not more often than once a second. For processes that have no thread for it."""
        if (self.away or self._facts) and time.monotonic() - self._tried >= _PAUSE_SECONDS:
            self.catch_up()

    def catch_up(self) -> bool:
        """Write what waits, as far as that is possible now. One thread at a time.

        Returns:
            Whether the database can be reached, as far as is known.
        """
        if not self.away and not self._facts:
            return True
        if self._lacks_schema and time.monotonic() - self._tried < _SCHEMA_PAUSE_SECONDS:
            return False
        if not self._writing.acquire(blocking=False):
            return not self.away
        try:
            self._tried = time.monotonic()
            return self._catch_up()
        finally:
            self._writing.release()

    def _catch_up(self) -> bool:
        try:
            # One probe, rather than one for each fact.
            with self._database.reading() as connection:
                connection.exec_driver_sql("SELECT 1")
            if self._lacks_schema:
                database_schema.check(self._database)
                self._lacks_schema = False
                logger.warning("the tables of task states are there now; this process goes on")
        except (SQLAlchemyError, DatabaseUnavailableError, SchemaError) as exc:
            self.note(exc)
            self._give_up_old()
            return False
        waited, was_away = len(self._facts), self.away
        # From here on new facts are written at once, except those of tasks that have some waiting.
        self.away = False
        blocked: set[int] = set()
        for fact in list(self._facts):
            if fact.task_id in blocked:
                continue
            if not self._written(fact):
                blocked.add(fact.task_id)
            if self.away:
                break
        self._give_up_old()
        if was_away and not self.away and waited > len(self._facts):
            self._told = -_TELL_SECONDS
            logger.warning("the database is back; %d facts that waited were written", waited - len(self._facts))
        return not self.away

    def _written(self, fact: Fact) -> bool:
        try:
            with self._database.transaction() as connection:
                result = fact.write(connection)
        except (SQLAlchemyError, DatabaseUnavailableError, *REFUSALS) as exc:
            if not self.note(exc) and not passes(exc):
                # The database is there and refuses these very values.
                fact.instead = fact.plainer() or fact.instead
                self._give_up(fact, f"the database refuses it: {type(exc).__name__}")
            return False
        self._remove(fact)
        try:
            fact.written(result)
        except Exception:
            logger.exception("what follows from a fact of task %s could not be done", fact.task_id)
        return True

    def _remove(self, fact: Fact) -> None:
        with self._guard:
            self._facts.remove(fact)
            self._tasks[fact.task_id] -= 1
            if not self._tasks[fact.task_id]:
                del self._tasks[fact.task_id]

    def _give_up_old(self) -> None:
        oldest = time.monotonic() - self._keep_seconds
        for fact in list(self._facts):
            if fact.since < oldest and fact.instead is not fact:
                self._give_up(fact, f"it waited for {self._keep_seconds:g} s")

    def _give_up(self, fact: Fact, why: str) -> None:
        logger.error("a fact of task %s cannot be recorded, %s: %r", fact.task_id, why, fact.told)
        with self._guard:
            place = self._facts.index(fact)
            if fact.instead is not None and fact.instead is not fact:
                self._facts[place] = fact.instead
                # What it says in the other's place is short, and is kept for as long as it takes.
                fact.instead.instead = fact.instead
                return
        self._remove(fact)

    def finish(self, seconds: float) -> None:
        """Write what waits before this process ends; what cannot be written is logged whole.

        Args:
            seconds: How long to try.
        """
        deadline = time.monotonic() + seconds
        while self._facts and time.monotonic() < deadline:
            self.catch_up()
            if self._facts:
                time.sleep(min(0.2, seconds))
        facts: Sequence[Fact] = list(self._facts)
        for fact in facts:
            logger.error("a fact of task %s cannot be recorded, this process ends: %r", fact.task_id, fact.told)
            self._remove(fact)

    def _forget_parent(self) -> None:
        self._facts, self._tasks = deque(), Counter()
        self._guard, self._writing = threading.Lock(), threading.Lock()
        # The parent has said that tables are missing.
        self.away = self._lacks_schema
