"""What SQLite needs: write-ahead log, write locks that are taken at the beginning, memory that is shared."""

from __future__ import annotations

import sqlite3
import time
from typing import Any, Final

from sqlalchemy import Connection
from sqlalchemy.engine import URL

#: Execution option that makes a transaction on SQLite take the write lock at once: the seconds to wait for it.
IMMEDIATE: Final = "taskstate_immediate"


#: Seconds between two tries to switch a new SQLite file to WAL.
_WAL_PAUSE_SECONDS: Final = 0.02


#: Seconds that a connection waits for SQLite's write lock.
SQLITE_BUSY_SECONDS: Final = 10.0


def is_in_memory(url: URL) -> bool:
    """Tell whether an SQLite database goes with its connection."""
    return url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:")


def shared_memory(url: URL, key: int) -> URL:
    """Give all connections of a process the same in-memory SQLite.

    The `memdb` VFS (SQLite 3.36) shares one database between connections and, unlike a shared cache, locks as a
    file does, so that waiting for a lock works.
    """
    if is_in_memory(url):
        return url.set(database=f"file:/taskstate-{key}", query={"vfs": "memdb", "uri": "true"})
    return url


def sqlite_connect(connection: Any, record: object) -> None:
    if not isinstance(connection, sqlite3.Connection):
        return
    cursor = connection.cursor()
    try:
        # WAL lets readers go on while one writes; NORMAL is durable against a crash of the process.
        _switch_to_wal(cursor)
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.execute("PRAGMA foreign_keys=ON")
    finally:
        cursor.close()


def _switch_to_wal(cursor: sqlite3.Cursor) -> None:
    deadline = time.monotonic() + SQLITE_BUSY_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            # Two who open a new file at once: this pragma does not wait for the other's lock (SQLite 3.40).
            if time.monotonic() > deadline:
                raise
        time.sleep(_WAL_PAUSE_SECONDS)


def begin_before_savepoint(connection: Connection, name: str) -> None:
    # The driver begins a transaction only before a change. A savepoint outside of one would be committed by its
    # release (sqlite3 of Python 3.11 to 3.14).
    driver = connection.connection.driver_connection
    if isinstance(driver, sqlite3.Connection) and not driver.in_transaction:
        connection.exec_driver_sql("BEGIN")


def begin(connection: Connection) -> None:
    seconds: float | None = connection.get_execution_options().get(IMMEDIATE)
    if seconds is None:
        return
    # A host's engine may give everybody the same connection (StaticPool, usual for tests in memory): then its
    # session's open transaction is ours too.
    driver = connection.connection.driver_connection
    if not isinstance(driver, sqlite3.Connection) or driver.in_transaction:
        return
    # Through SQLAlchemy, so that a lock that is not had in time is its `OperationalError`, not the driver's.
    if seconds == SQLITE_BUSY_SECONDS:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        return
    driver.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")
    try:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    finally:
        driver.execute(f"PRAGMA busy_timeout = {int(SQLITE_BUSY_SECONDS * 1000)}")
