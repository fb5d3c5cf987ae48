"""What differs between databases: the clock, and how long to wait for a lock."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, func, select

from ..clock import as_utc

#: Seconds that a short transaction waits for a locked row.
LOCK_SECONDS: Final = 1


def limit_lock_wait(connection: Connection) -> None:
    """Let the statements of this transaction wait `LOCK_SECONDS` at most for a locked row; elsewhere they do anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.set_config("lock_timeout", str(LOCK_SECONDS * 1000), True)))


def database_time(connection: Connection) -> datetime:
    """Return this moment by the database's clock, aware UTC."""
    return moment_of_clock(connection.execute(select(database_clock(connection.dialect.name))).scalar_one())


def database_clock(dialect: str) -> ColumnElement[Any]:
    """Return the expression for this moment by the database's clock; `moment_of_clock` reads what it gives."""
    match dialect:
        case "postgresql":
            return func.clock_timestamp()
        case "sqlite":
            return func.strftime("%Y-%m-%dT%H:%M:%f", "now")
        case _:
            return func.utc_timestamp(6)


def moment_of_clock(value: object) -> datetime:
    """Return what `database_clock` gave as an aware UTC moment."""
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return as_utc(moment)
