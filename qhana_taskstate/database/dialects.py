"""How the SQL databases are told apart: another one is a `Kind` in `KINDS`, and its words where statements differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Integer,
    LargeBinary,
    Table,
    Text,
    cast,
    func,
    insert,
    select,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.engine import URL
from sqlalchemy.types import TIMESTAMP, TypeEngine

from ..clock import as_utc
from .sqlite import SQLITE_BUSY_SECONDS

#: Seconds that a short transaction waits for a locked row.
LOCK_SECONDS: Final = 1

#: Seconds for a new connection, and after which a connection whose other end does not even acknowledge is given up.
_CONNECT_SECONDS, _SILENCE_SECONDS = 3, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of database: what it can do, and how it is asked for what SQL has no common word for.

    Attributes:
        extra: The extra of this package that brings a driver, and how a URL names that; None if Python has one.
        connect_args: Returns what the driver is told for a connection, from the URL.
        one_writer: A transaction that writes locks the whole database, and rows have no locks of their own.
        advisory_locks: It has locks that are only names, for as long as a transaction or a connection.
        lock_timeout: A transaction can say itself for how long its statements wait for a locked row.
        session_lock_timeout: Only the whole connection can say that.
        locks_what_it_reads: An UPDATE waits for a row that it looks at, also if it does not change it.
        locks_parent: A row that is inserted locks the one that its foreign key refers to.
        ids_again: The ids of rows that were removed are given out again.
        time_zones: A column of moments takes aware ones.
        partial_indexes: An index may hold a part of the rows; see `only_where`.
        writes_in_with: An INSERT may stand in the WITH of another one.
        text_bytes: How much a column of type TEXT holds; None for as much as anybody writes.
        clock: Returns the expression for this moment.
        characters: Returns the expression for how many characters a text has.
        bytes: Returns the expression for how many bytes of UTF-8 a text has.
        insert_absent: Returns the INSERT that leaves rows alone whose key is there.
    """

    extra: tuple[str, str] | None = None
    connect_args: Callable[[URL], dict[str, Any]]
    one_writer: bool = False
    advisory_locks: bool = False
    lock_timeout: bool = False
    session_lock_timeout: bool = False
    locks_what_it_reads: bool = False
    locks_parent: bool = False
    ids_again: bool = False
    time_zones: bool = False
    partial_indexes: bool = False
    writes_in_with: bool = False
    text_bytes: int | None = None
    clock: Callable[[], ColumnElement[Any]]
    characters: Callable[[ColumnElement[str]], ColumnElement[int]] = field(default=func.char_length)
    bytes: Callable[[ColumnElement[str]], ColumnElement[int]] = field(default=func.octet_length)
    insert_absent: Callable[[Table], Any]


def _postgresql_arguments(url: URL) -> dict[str, Any]:
    arguments: dict[str, Any] = {"connect_timeout": _CONNECT_SECONDS}
    if url.get_driver_name() in {"psycopg", "psycopg2"}:
        # So that nobody waits for a quarter of an hour on a network that was cut (Linux, tcp_retries2).
        arguments["tcp_user_timeout"] = _SILENCE_SECONDS * 1000
    if url.get_driver_name() == "psycopg" and "prepare_threshold" not in url.query:
        # At each rollback, so after each read, psycopg disposes of all that is prepared, which costs more than it
        # gains, and takes the statements of scripts along.
        arguments["prepare_threshold"] = None
    return arguments


_SQLITE: Final = Kind(
    connect_args=lambda _: {"timeout": SQLITE_BUSY_SECONDS, "check_same_thread": False},
    one_writer=True,
    ids_again=True,
    partial_indexes=True,
    clock=lambda: func.strftime("%Y-%m-%dT%H:%M:%f", "now"),
    # SQLite does not know `char_length`, and `octet_length` only from 3.43 on.
    characters=func.length,
    bytes=lambda text: func.length(cast(text, LargeBinary)),
    insert_absent=lambda table: sqlite_insert(table).on_conflict_do_nothing(),
)

_POSTGRESQL: Final = Kind(
    extra=("postgresql", "postgresql+psycopg"),
    connect_args=_postgresql_arguments,
    advisory_locks=True,
    lock_timeout=True,
    time_zones=True,
    partial_indexes=True,
    writes_in_with=True,
    clock=lambda: func.clock_timestamp(),
    insert_absent=lambda table: postgresql_insert(table).on_conflict_do_nothing(),
)


def _mysql(scheme: str) -> Kind:
    return Kind(
        extra=("mysql", scheme),
        connect_args=lambda _: {"connect_timeout": _CONNECT_SECONDS, "charset": "utf8mb4"},
        session_lock_timeout=True,
        locks_what_it_reads=True,
        locks_parent=True,
        text_bytes=65535,
        clock=lambda: func.utc_timestamp(6),
        insert_absent=lambda table: insert(table).prefix_with("IGNORE"),
    )


#: By SQLAlchemy's name.
KINDS: Final = {
    "sqlite": _SQLITE,
    "postgresql": _POSTGRESQL,
    "mysql": _mysql("mysql+pymysql"),
    "mariadb": _mysql("mariadb+pymysql"),
}

_MYSQL_NAMES: Final = tuple(name for name in KINDS if name in {"mysql", "mariadb"})


def kind_of(name: str) -> Kind:
    """Return the kind of database that SQLAlchemy calls so; an unknown one is taken for a plain server."""
    return KINDS.get(name, KINDS["mysql"])


# Types of columns


#: A text as long as anybody writes.
LONG_TEXT_TYPE: Final = Text().with_variant(mysql.LONGTEXT(), *_MYSQL_NAMES)

#: A number that the database gives out; SQLite does so for INTEGER alone.
SERIAL: Final = BigInteger().with_variant(Integer(), "sqlite")


def moment_type(name: str) -> TypeEngine[Any]:
    """Return the type of a column of moments; MySQL's TIMESTAMP drops fractions and ends in 2038."""
    return mysql.DATETIME(fsp=6) if name in _MYSQL_NAMES else TIMESTAMP(timezone=True)


def runner_moment_type(name: str) -> TypeEngine[Any]:
    """Return the type that the plugin runner's columns of moments have."""
    return mysql.TIMESTAMP() if name in _MYSQL_NAMES else TIMESTAMP(timezone=True)


def only_where(condition: ColumnElement[bool]) -> dict[str, Any]:
    """Return the keywords of an `Index` over those rows alone; one over all where a database has no such index."""
    return {"postgresql_where": condition, "sqlite_where": condition}


# Time, and how long to wait for a lock


def limit_lock_wait(connection: Connection, seconds: float = LOCK_SECONDS) -> None:
    """Let the statements of this transaction wait so long at most for a locked row; elsewhere they do anyway."""
    if kind_of(connection.dialect.name).lock_timeout:
        connection.execute(select(func.set_config("lock_timeout", str(round(seconds * 1000)), True)))


def database_time(connection: Connection) -> datetime:
    """Return this moment by the database's clock, aware UTC."""
    return moment_of_clock(connection.execute(select(database_clock(connection.dialect.name))).scalar_one())


def database_clock(dialect: str) -> ColumnElement[Any]:
    """Return the expression for this moment by the database's clock; `moment_of_clock` reads what it gives."""
    return kind_of(dialect).clock()


def moment_of_clock(value: object) -> datetime:
    """Return what `database_clock` gave as an aware UTC moment."""
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return as_utc(moment)
