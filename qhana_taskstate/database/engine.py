"""The database of one `TaskState`: its engine, its connections and its short transactions."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Engine, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError

from ..errors import DatabaseUnavailableError, SettingsError
from ..fork import call_in_child
from .connections import make_engine, prepare
from .dialects import LOCK_SECONDS, kind_of
from .scripts.pipeline import can_pipeline, pipelined
from .scripts.statement import ANNOUNCED, Sent, Statement
from .sqlite import IMMEDIATE, SQLITE_BUSY_SECONDS, is_in_memory, shared_memory

T = TypeVar("T")


#: Seconds that an impatient transaction waits for SQLite's write lock.
IMPATIENT_SECONDS: Final = 0.1


#: What a parent process left in a forked child; kept, since closing it would speak on the parent's sockets.
_abandoned: Final[list[object]] = []


class Database:
    """Engine and short transactions. One instance a `TaskState`; makes one engine in each process that uses it.

    Args:
        url: SQLAlchemy URL. An in-memory SQLite is shared by all threads of the process.
        engine: An engine of the host, used as it is instead of the URL.

    Raises:
        SettingsError: If the URL cannot be read or its driver is not installed.
    """

    def __init__(self, url: str, *, engine: Engine | None = None) -> None:
        self._given = engine
        self._engine: Engine | None = None
        self._pid = 0
        self._guard = threading.Lock()
        self._lent = threading.local()
        self._kept: int | None = None
        #: Called after the commit of a transaction that `announce_after_commit` was asked for.
        self.announce: Callable[[], None] = lambda: None
        call_in_child(self._forget_parent)
        if engine is None:
            try:
                self._url: URL = shared_memory(make_url(url), id(self))
                self._url.get_dialect()
            except (ArgumentError, NoSuchModuleError, ValueError):
                # Without the cause, which may quote a part of the URL.
                raise SettingsError(
                    "taskstate_database_url is no SQLAlchemy URL or names an unknown database; "
                    "use for example 'sqlite:///taskstate.db' or 'postgresql+psycopg://user@host/name'"
                ) from None
        else:
            self._url = engine.url
        #: SQLAlchemy's name of the kind of database: sqlite, postgresql, mysql or mariadb.
        self.dialect: str = self._url.get_backend_name()
        self._limits_waits = kind_of(self.dialect).session_lock_timeout

    def __repr__(self) -> str:
        return f"<Database {self.name}>"

    @property
    def name(self) -> str:
        """The database without its password, for messages to people."""
        # Drivers take a password in the query too.
        return self._url.set(query={}).render_as_string(hide_password=True)

    @property
    def file(self) -> str | None:
        """The path of SQLite's file as the URL names it, None for a database in memory or on a server."""
        name = self._url.database
        if self.dialect != "sqlite" or not name or name == ":memory:" or "vfs" in self._url.query:
            return None
        return name

    @property
    def engine(self) -> Engine:
        """The engine of this process, made at first use and again after a fork."""
        if self._engine is None or self._pid != os.getpid():
            with self._guard:
                if self._engine is None or self._pid != os.getpid():
                    self._renew()
        assert self._engine is not None  # noqa: S101  (set by _renew; tells the type checker)
        return self._engine

    def _renew(self) -> None:
        if self._engine is not None and not (self._given is not None and is_in_memory(self._url)):
            # The parent goes on using its sockets: a child forgets them without closing (SQLAlchemy, "Using
            # Connection Pools with Multiprocessing").
            self._engine.dispose(close=False)
        elif self._given is not None and self._pid == 0:
            self._engine = self._given
            prepare(self._engine)
        if self._engine is None:
            self._engine = make_engine(self._url, self.name, kept=self._kept)
        self._pid = os.getpid()

    def _forget_parent(self) -> None:
        self._guard = threading.Lock()
        if self._given is not None and self._engine is not None and not is_in_memory(self._url):
            # The host may use it before we do: what lies in its pool is the parent's.
            self._engine.dispose(close=False)
        # What a thread of the parent lent it is the parent's.
        _abandoned.append(self._lent)
        self._lent = threading.local()

    def keep_connections(self, kept: int) -> None:
        """Limit how many unused connections to a server this process keeps; before its first use.

        Args:
            kept: How many; SQLAlchemy's default otherwise.
        """
        self._kept = kept

    def dispose(self) -> None:
        """Close the pooled connections of this process; the next use opens new ones."""
        if self._engine is not None and self._pid == os.getpid():
            self._engine.dispose()

    def close(self) -> None:
        """Close the pooled connections of this process, unless the engine is the host's."""
        if self._given is None:
            self.dispose()

    @contextmanager
    def transaction(self, *, patience: float | None = None) -> Iterator[Connection]:
        """Open a short transaction of our own; commits at the end, rolls back on an exception.

        Args:
            patience: Seconds to wait for SQLite's write lock, 0 to take it now or not at all; None waits for
                `SQLITE_BUSY_SECONDS`.

        On SQLite it takes the write lock at once, so that it never fails half-way for want of it. On MariaDB a
        locked row is waited for `LOCK_SECONDS` at most; on PostgreSQL the statements that lock say so themselves.

        Yields:
            A connection in READ COMMITTED.

        Raises:
            DatabaseUnavailableError: If the database cannot be reached.
            sqlalchemy.exc.DBAPIError: Whatever else the database refuses.
        """
        with self._connected(**{IMMEDIATE: SQLITE_BUSY_SECONDS if patience is None else patience}) as connection:
            # The mark lies with the pooled connection, and a transaction that failed leaves it there.
            connection.info.pop(ANNOUNCED, None)
            with connection.begin():
                if self._limits_waits:
                    connection.exec_driver_sql(f"SET SESSION innodb_lock_wait_timeout = {LOCK_SECONDS}")
                    try:
                        yield connection
                    finally:
                        # The connection may serve a plugin's session next, which may wait for as long as it likes.
                        connection.exec_driver_sql(
                            "SET SESSION innodb_lock_wait_timeout = @@GLOBAL.innodb_lock_wait_timeout"
                        )
                else:
                    yield connection
            announced = connection.info.pop(ANNOUNCED, False)
        if announced:
            self.announce()

    @cached_property
    def pipelines(self) -> bool:
        """Whether the driver takes several statements in one message, so that `sending` works."""
        return can_pipeline(self.engine)

    @contextmanager
    def sending(self, statements: Sequence[Statement], *, at_once: bool = False) -> Iterator[Sent]:
        """Send statements in one message, in a short transaction of their own; where the database `pipelines`.

        It commits at the end, and rolls back on an exception.

        Args:
            statements: What to write.
            at_once: Whether they may be committed as they are sent.

        Raises:
            DatabaseUnavailableError: If the database cannot be reached.
            sqlalchemy.exc.DBAPIError: Whatever else the database refuses.
        """
        with self._connected() as connection:
            connection.info.pop(ANNOUNCED, None)
            with pipelined(connection, statements, at_once=at_once) as sent:
                yield sent
            announced = connection.info.pop(ANNOUNCED, False)
        if announced:
            self.announce()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a connection to read with; nothing stays open afterwards.

        Raises:
            DatabaseUnavailableError: If the database cannot be reached.
        """
        with self._connected() as connection:
            yield connection

    @contextmanager
    def lending(self, connection: Connection | None) -> Iterator[None]:
        """Let this thread's `transaction` and `reading` use a connection instead of one from the pool.

        Args:
            connection: One of `apart` that no other thread uses. The pool serves in its place while it is in use,
                once it broke, or if it is None.
        """
        self._lent.connection = connection
        try:
            yield
        finally:
            self._lent.connection = None

    def apart(self) -> Connection:
        """Open a connection that does not belong to the pool; the caller closes it.

        Raises:
            DatabaseUnavailableError: If the database cannot be reached.
            sqlalchemy.exc.SQLAlchemyError: If the pool has none to give.
        """
        connection = self._connect()
        connection.detach()
        return connection

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run a reading `work`; once more if its connection broke while it lay in the pool.

        Raises:
            DatabaseUnavailableError: If the database cannot be reached.
            sqlalchemy.exc.DBAPIError: Whatever else the database refuses.
        """
        try:
            with self.reading() as connection:
                return work(connection)
        except DBAPIError as exc:
            if not exc.connection_invalidated:
                raise
        with self.reading() as connection:
            return work(connection)

    def _connected(self, **options: Any) -> AbstractContextManager[Connection]:
        lent: Connection | None = getattr(self._lent, "connection", None)
        if lent is None or lent.closed or lent.invalidated or lent.in_transaction():
            return self._connect().execution_options(**options)
        return _borrowed(lent)

    def _connect(self) -> Connection:
        try:
            return self.engine.connect()
        except OperationalError as exc:
            raise self._unavailable(exc.orig) from exc

    def _unavailable(self, cause: object) -> DatabaseUnavailableError:
        told = " ".join(str(cause).split())
        return DatabaseUnavailableError(
            f"the database {self.name} cannot be reached: {told}; check taskstate_database_url"
        )


@contextmanager
def _borrowed(connection: Connection) -> Iterator[Connection]:
    """Use a connection that is given back open."""
    try:
        yield connection
    finally:
        # What the pool does when a connection is given back.
        connection.rollback()
