"""Which errors of a database pass by themselves, and which say that it is gone."""

from __future__ import annotations

import sqlite3
from typing import Final

from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, OperationalError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from ..errors import DatabaseUnavailableError, TextCharacterError

#: What is raised where the database is there and the values are what is wrong. SQLAlchemy wraps only errors of the
#: driver's own classes: a number that SQLite cannot hold is Python's OverflowError, a text that cannot be encoded its
#: UnicodeError.
REFUSALS: Final = (StatementError, OverflowError, UnicodeError, TextCharacterError)


#: What SQLite says where trying again later helps.
_SQLITE_PASSES: Final = ("locked", "busy", "unable to open", "disk i/o error", "is full")


#: What MariaDB says of wrong statements and missing rights, and PyMySQL calls an `OperationalError`: unknown column, no
#: default value, command denied.
_MYSQL_STAYS: Final = frozenset({1054, 1142, 1143, 1364})


#: SQLSTATE of what passes and is no `OperationalError` of the driver: the server is a standby for the moment.
_READ_ONLY: Final = "25006"


#: SQLSTATEs, by their beginning, with which PostgreSQL says that it cannot serve now: no connection, none left, it
#: shuts down or starts.
_GONE_STATES: Final = ("08", "53300", "57P", _READ_ONLY)


def passes(exc: BaseException) -> bool:
    """Tell whether a fault of the database passes by itself, so that trying again later helps.

    So do lost connections, restarts, too many connections, locks, deadlocks, serialisation failures, a full disk, and a
    failover; wrong values and missing tables do not.
    """
    if isinstance(exc, (DatabaseUnavailableError, DisconnectionError, PoolTimeoutError)):
        return True
    if not isinstance(exc, DBAPIError):
        return False
    if exc.connection_invalidated or _sqlstate(exc) == _READ_ONLY:
        return True
    if isinstance(exc.orig, sqlite3.Error):
        told = str(exc.orig).lower()
        return any(words in told for words in _SQLITE_PASSES)
    if exc.orig is not None and exc.orig.args and exc.orig.args[0] in _MYSQL_STAYS:
        return False
    return isinstance(exc, (OperationalError, InterfaceError))


def is_gone(exc: BaseException) -> bool:
    """Tell whether a fault says that the whole database cannot be used now, by anybody."""
    if isinstance(exc, (DatabaseUnavailableError, DisconnectionError)):
        return True
    if not isinstance(exc, DBAPIError):
        return False
    return exc.connection_invalidated or isinstance(exc, InterfaceError) or _sqlstate(exc).startswith(_GONE_STATES)


def _sqlstate(exc: DBAPIError) -> str:
    return str(getattr(exc.orig, "sqlstate", None) or getattr(exc.orig, "pgcode", None) or "")
