"""Runs the migrations with Alembic, one upgrade of a database at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import OperationalError

from ...errors import DatabaseUnavailableError, SchemaError
from ..engine import Database
from ..sqlite import IMMEDIATE, SQLITE_BUSY_SECONDS
from .revisions import VERSION_TABLE, known_revisions, revision_of
from .whole_metadata import metadata

#: How the names of our own tables begin; the runner's may be there without them.
_OWN_PREFIX: Final = "taskstate_"

#: Longest time in seconds that an upgrade waits for another one on MariaDB and MySQL, which cannot wait forever.
_LOCK_SECONDS: Final = 600

#: Names the lock of PostgreSQL; any constant that nobody else uses.
_LOCK_KEY: Final = 0x7161_7461_736B


def upgrade(database: Database) -> None:
    """Bring the schema to the newest version; see `schema.upgrade`.

    Args:
        database: Where.

    Raises:
        DatabaseUnavailableError: If the database cannot be reached.
        SchemaError: If the database is of a version that this package does not know, or a table of the runner that was
            there before lacks columns; nothing is changed then.
    """
    with _alone(database) as connection:
        known = known_revisions()
        seen = revision_of(connection)
        if seen is not None and seen not in known:
            raise SchemaError(
                f"the schema of {database.name} has the version {seen!r}, which is newer than this qhana_taskstate "
                f"(newest known: {known[-1]!r}); upgrade the package"
            )
        if seen is None:
            adopt(connection)
        command.upgrade(_config(connection), "head")
        _refuse_missing_columns(connection, database)


def _refuse_missing_columns(connection: Connection, database: Database) -> None:
    """Refuse tables of a runner that its own migrations, which are not ours to run, have yet to bring up to date."""
    inspector = inspect(connection)
    for table in metadata.tables.values():
        if not table.name.startswith(_OWN_PREFIX):
            present = {column["name"] for column in inspector.get_columns(table.name)}
            missing = sorted(column.name for column in table.columns if column.name not in present)
            if missing:
                raise SchemaError(
                    f"the table {table.name} of {database.name}, which was there before, lacks {', '.join(missing)}; "
                    "run the migrations of the application that made it (flask db upgrade), then this again"
                )


def adopt(connection: Connection) -> None:
    """Note the newest version where our own tables are there without one; see `schema.adopt`.

    A first upgrade that broke on MariaDB, which commits each statement, is gone on with so too.
    """
    present = set(inspect(connection).get_table_names())
    if any(name in present for name in metadata.tables if name.startswith(_OWN_PREFIX)):
        metadata.create_all(connection)
        for table in metadata.tables.values():
            for index in table.indexes:
                index.create(connection, checkfirst=True)
        command.stamp(_config(connection), "head")


def _config(connection: Connection) -> Config:
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
