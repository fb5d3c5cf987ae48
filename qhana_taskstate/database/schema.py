"""The schema of the database: bring it up to date, and tell whether it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from ..errors import DatabaseUnavailableError, SchemaError
from .engine import Database
from .sqlite import IMMEDIATE, SQLITE_BUSY_SECONDS

#: Where the version is kept; the plugin runner's `alembic_version` is its own.
VERSION_TABLE: Final = "taskstate_alembic_version"

#: What people run to bring the schema up to date.
UPGRADE_COMMAND: Final = "celery -A worker taskstate upgrade"

#: Longest time in seconds that an upgrade waits for another one on MariaDB and MySQL, which cannot wait forever.
_LOCK_SECONDS: Final = 600

#: Names the lock of PostgreSQL; any constant that nobody else uses.
_LOCK_KEY: Final = 0x7161_7461_736B


def upgrade(database: Database) -> None:
    """Bring the schema to this version of the package. Safe to repeat, and for two at once.

    Makes the plugin runner's tables where they are missing and leaves those that are there, with their rows. On
    PostgreSQL and SQLite it is done in one transaction; MariaDB commits each statement by itself.

    Args:
        database: Where.

    Raises:
        DatabaseUnavailableError: If the database cannot be reached.
        SchemaError: If the database is of a version that this package does not know.
    """
    with _alone(database) as connection:
        known = known_revisions()
        seen = _revision(connection)
        if seen is not None and seen not in known:
            raise SchemaError(
                f"the schema of {database.name} has the version {seen!r}, which is newer than this qhana_taskstate "
                f"(newest known: {known[-1]!r}); upgrade the package"
            )
        command.upgrade(_config(connection), "head")


def current_revision(database: Database) -> str | None:
    """Return the version of the schema, None if it was never made.

    Raises:
        DatabaseUnavailableError: If the database cannot be reached.
    """
    try:
        with database.reading() as connection:
            return _revision(connection)
    except OperationalError as exc:
        raise DatabaseUnavailableError(
            f"the database {database.name} cannot be read: {exc.orig}; check taskstate_database_url"
        ) from exc


def check(database: Database) -> None:
    """Make sure that this package can work with the schema: its own version, the one before, or a newer one.

    Raises:
        SchemaError: If the tables are missing or older; names what to run.
        DatabaseUnavailableError: If the database cannot be reached.
    """
    seen = current_revision(database)
    known = known_revisions()
    if seen is None:
        raise SchemaError(f"the tables of qhana_taskstate are missing in {database.name}; run: {UPGRADE_COMMAND}")
    # A version that is not known is a newer one: workers of two releases run side by side while one is rolled out.
    if seen in known[:-2]:
        raise SchemaError(
            f"the schema of {database.name} has the version {seen!r}, but this qhana_taskstate needs {known[-2]!r} "
            f"or newer; run: {UPGRADE_COMMAND}"
        )


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()


@cache
def known_revisions() -> tuple[str, ...]:
    """Return all versions that this package knows, oldest first."""
    script = ScriptDirectory.from_config(_config(None))
    return tuple(revision.revision for revision in script.walk_revisions())[::-1]


def _config(connection: Connection | None) -> Config:
    config = Config()
    config.set_main_option("script_location", "qhana_taskstate.database:migrations")
    config.attributes.update(connection=connection, version_table=VERSION_TABLE)
    return config


@contextmanager
def _alone(database: Database) -> Iterator[Connection]:
    """Open a transaction that waits until no other upgrade of this database runs."""
    try:
        connection = database.engine.connect()
    except OperationalError as exc:
        raise DatabaseUnavailableError(
            f"the database {database.name} cannot be reached: {exc.orig}; check taskstate_database_url"
        ) from exc
    with connection.execution_options(**{IMMEDIATE: SQLITE_BUSY_SECONDS}):
        if database.dialect in {"mysql", "mariadb"}:
            with _named_lock(connection), connection.begin():
                yield connection
            return
        with connection.begin():
            if database.dialect == "postgresql":
                # Of the transaction, not of the session: behind PgBouncer each transaction may have another one.
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
            yield connection


@contextmanager
def _named_lock(connection: Connection) -> Iterator[None]:
    name = "concat('taskstate_upgrade ', left(database(), 40))"
    taken = connection.execute(text(f"SELECT get_lock({name}, {_LOCK_SECONDS})")).scalar()
    connection.commit()
    if not taken:
        raise SchemaError(f"another upgrade of this database has not ended in {_LOCK_SECONDS} s; try again")
    try:
        yield
    finally:
        if connection.in_transaction():
            connection.rollback()
        connection.execute(text(f"SELECT release_lock({name})"))
        connection.commit()
