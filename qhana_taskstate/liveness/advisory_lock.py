"""Proof of life from another machine: a session lock of PostgreSQL.

A process holds it until it ends. The server gives such a lock up when the connection ends, and the connection
of a living process ends neither while C code holds its interpreter nor while it is stopped.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import weakref
from collections.abc import Collection
from typing import Any, Final

from sqlalchemy import BigInteger, Boolean, Connection, bindparam, func, literal, select, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from ..database.dialects import kind_of
from ..database.engine import Database
from ..errors import DatabaseUnavailableError
from .process import is_alive

logger = logging.getLogger(__name__)

#: What lets the server notice soon that the machine at the other end is gone (seconds, seconds, times, ms), and what
#: keeps it from ending a session that is silent for good reason. What a version of the server lacks is left out.
_SESSION: Final = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "25000",
    "idle_session_timeout": "0",
}

# A 64-bit key is shown in two halves (PostgreSQL, "pg_locks": objsubid is 1 then).
_HELD: Final = text(
    "SELECT key FROM (SELECT (classid::bigint << 32) | objid::bigint AS key FROM pg_locks"
    " WHERE locktype = 'advisory' AND objsubid = 1 AND granted"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())) AS held"
    " WHERE key IN :keys"
).bindparams(bindparam("keys", expanding=True, type_=BigInteger))


def key_of(host: str | None, pid: int | None, started: float | None) -> int | None:
    """Return the key of the lock that a process holds, as a signed 64-bit number.

    Args:
        host: What `process.this_host` said where it runs.
        pid: Its process id.
        started: What `process.started_at` said of it.

    Returns:
        None if these do not name one process only.
    """
    if host is None or pid is None or started is None:
        return None
    digest = hashlib.sha256(f"{host}\0{pid}\0{float(started)!r}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def held(connection: Connection, keys: Collection[int]) -> set[int]:
    """Return those of the keys whose lock is held by a living process, in one statement. Does not commit.

    Returns:
        Nothing on databases without such locks, and where the server does not tell.

    Raises:
        sqlalchemy.exc.DBAPIError: If the connection broke.
    """
    if not keys or not kind_of(connection.dialect.name).advisory_locks:
        return set()
    try:
        return set(connection.execute(_HELD, {"keys": sorted(keys)}).scalars())
    except DBAPIError as exc:
        if exc.connection_invalidated:
            raise
        logger.debug("the server does not tell who holds advisory locks: %s", type(exc).__name__)
        return set()


def lives(connection: Connection, host: str | None, pid: int | None, started: float | None) -> bool:
    """Tell whether a process is alive, for certain: seen from here, or by the lock that it holds. Does not commit.

    Args:
        connection: Where to ask for the lock.
        host: What `process.this_host` said where it runs.
        pid: Its process id.
        started: What `process.started_at` said of it.

    Raises:
        sqlalchemy.exc.DBAPIError: If the connection broke.
    """
    if is_alive(host, pid, started):
        return True
    key = key_of(host, pid, started)
    return key is not None and key in held(connection, {key})


def is_direct(connection: Connection) -> bool:
    """Tell whether the other end of a connection is a session of the server that is ours alone.

    A pooler such as PgBouncer answers for the server and gives a process id of its own invention. In transaction mode
    a session lock would stay with a server connection that serves others next.
    """
    told = _told_by_driver(connection)
    return told is not None and told == connection.execute(select(func.pg_backend_pid())).scalar_one()


def _told_by_driver(connection: Connection) -> int | None:
    # psycopg and psycopg2 keep what the other end said when the connection was made. SQLAlchemy's own name for it,
    # `driver_connection`, is None once a connection left its pool (2.1).
    info = getattr(connection.connection.dbapi_connection, "info", None)
    pid = getattr(info, "backend_pid", None)
    return pid if isinstance(pid, int) else None


class Voucher:
    """Holds the lock of this process on a connection of its own, outside the pool.

    A fault of it is no fault of the work: it is logged at DEBUG, and the next `stand` tries again.
    """

    def __init__(self) -> None:
        self._connection: Connection | None = None
        self._has_lock = False
        #: Whether this process has tried to take the lock.
        self.tried = False
        self._refused = False
        self._guard = threading.Lock()
        _known.add(self)

    @property
    def connection(self) -> Connection | None:
        """The connection that holds the lock; one thread alone may use it for more."""
        return self._connection

    def stand_first(self, database: Database, key: int | None) -> None:
        """Take the lock if this was never tried; costs a connection then, and nothing later."""
        if not self.tried:
            with self._guard:
                if not self.tried:
                    self._stand(database, key)

    def stand(self, database: Database, key: int | None) -> None:
        """Take the lock, or see whether it is still held and take it again.

        Only for the thread that uses `connection`.

        Args:
            database: Where; nothing is done if it is not PostgreSQL or not reached directly.
            key: What `key_of` said of this process.
        """
        with self._guard:
            self._stand(database, key)

    def close(self) -> None:
        """Give the lock up."""
        with self._guard:
            self._drop()

    def _stand(self, database: Database, key: int | None) -> None:
        try:
            self._try(database, key)
        finally:
            # Not before: who asks with `stand_first` meanwhile must wait until the lock is held.
            self.tried = True

    def _try(self, database: Database, key: int | None) -> None:
        if self._refused or key is None or not kind_of(database.dialect).advisory_locks:
            return
        try:
            if self._connection is not None and self._works(self._connection, key):
                return
            self._drop()
            self._open(database, key)
        except (SQLAlchemyError, DatabaseUnavailableError) as exc:
            logger.debug("no advisory lock vouches for this process now: %s", type(exc).__name__)
            self._drop()

    def _works(self, connection: Connection, key: int) -> bool:
        if connection.closed or connection.invalidated:
            return False
        try:
            with connection.begin():
                if self._has_lock:
                    connection.execute(select(literal(1)))
                else:
                    self._has_lock = _take(connection, key)
        except DBAPIError as exc:
            logger.debug("the connection of the advisory lock broke: %s", type(exc).__name__)
            return False
        return True

    def _open(self, database: Database, key: int) -> None:
        connection = database.apart()
        try:
            with connection.begin():
                self._refused = not is_direct(connection)
                if not self._refused:
                    for name, value in _SESSION.items():
                        connection.execute(_SET, {"name": name, "value": value})
                    self._has_lock = _take(connection, key)
        except BaseException:
            _close(connection)
            raise
        if self._refused:
            logger.debug("it cannot be told that the database is reached directly: no advisory lock is taken")
            _close(connection)
        else:
            # Only now: a thread that sees it may use it.
            self._connection = connection

    def _drop(self) -> None:
        connection, self._connection, self._has_lock = self._connection, None, False
        if connection is not None:
            _close(connection)

    def forget_parent(self) -> None:
        """Leave the parent's connection alone, in a forked child: nothing is said on it there."""
        if self._connection is not None:
            _inherited.append(self._connection)
            _let_go(self._connection)
        self._connection, self._has_lock, self.tried = None, False, False
        self._guard = threading.Lock()


#: Sets a parameter for the session, if the server knows it.
_SET: Final = text("SELECT set_config(name, :value, false) FROM pg_settings WHERE name = :name")


def _take(connection: Connection, key: int) -> bool:
    # Not waited for: a session of ours that broke may hold it until the server notices.
    taken: Any = connection.execute(
        select(func.pg_try_advisory_lock(literal(key, BigInteger), type_=Boolean))
    ).scalar_one()
    return bool(taken)


def _close(connection: Connection) -> None:
    try:
        connection.close()
    except SQLAlchemyError as exc:
        logger.debug("closing the connection of the advisory lock failed: %s", type(exc).__name__)


_known: weakref.WeakSet[Voucher] = weakref.WeakSet()

#: Connections of a parent process; kept, since closing them would speak on the parent's sockets.
_inherited: list[Connection] = []


def _let_go(connection: Connection) -> None:
    """Let the socket of a parent end with the parent: a child that has it too would keep the lock of the dead."""
    if connection.closed or connection.invalidated:
        return
    try:
        descriptor = connection.connection.dbapi_connection.fileno()  # type: ignore[union-attr]  # the driver's own
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, descriptor, inheritable=False)
        os.close(null)
    except (OSError, AttributeError, connection.dialect.loaded_dbapi.Error) as exc:
        logger.debug("the socket of the parent process stays open here: %s", type(exc).__name__)


def _forget_parent() -> None:
    for voucher in list(_known):
        voucher.forget_parent()


os.register_at_fork(after_in_child=_forget_parent)
