"""The schema of the database: bring it up to date, and tell whether it is."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from ..errors import DatabaseUnavailableError, SchemaError
from . import migrations
from .engine import Database
from .migrations.revisions import VERSION_TABLE, known_revisions, revision_of

__all__ = ["UPGRADE_COMMAND", "VERSION_TABLE", "adopt", "check", "current_revision", "known_revisions", "upgrade"]

#: What people run to bring the schema up to date.
UPGRADE_COMMAND: Final = "celery -A worker taskstate upgrade"


#: The first version that has all tables and columns which this package reads and writes.
_NEEDED: Final = "0007"


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
    migrations.upgrade.upgrade(database)


def adopt(connection: Connection) -> None:
    """Note the newest version where the tables of the models were made by `create_all`; what is missing is added.

    Does nothing where none of our own tables is there.

    Args:
        connection: In whose transaction to write; there is no version yet.
    """
    migrations.upgrade.adopt(connection)


def current_revision(database: Database) -> str | None:
    """Return the version of the schema, None if it was never made.

    Raises:
        DatabaseUnavailableError: If the database cannot be reached.
    """
    try:
        with database.reading() as connection:
            return revision_of(connection)
    except OperationalError as exc:
        raise DatabaseUnavailableError(
            f"the database {database.name} cannot be read: {exc.orig}; check taskstate_database_url"
        ) from exc


def check(database: Database) -> None:
    """Make sure that this package can work with the schema: its own version, a newer one, or the one before.

    The latter only where it lacks nothing that is read and written.

    Raises:
        SchemaError: If the tables are missing or older; names what to run.
        DatabaseUnavailableError: If the database cannot be reached.
    """
    seen = current_revision(database)
    known = known_revisions()
    if seen is None:
        raise SchemaError(f"the tables of qhana_taskstate are missing in {database.name}; run: {UPGRADE_COMMAND}")
    # A version that is not known is a newer one: workers of two releases run side by side while one is rolled out.
    oldest = max(len(known) - 2, known.index(_NEEDED) if _NEEDED in known else 0)
    if seen in known[:oldest]:
        raise SchemaError(
            f"the schema of {database.name} has the version {seen!r}, but this qhana_taskstate needs {known[oldest]!r} "
            f"or newer; run: {UPGRADE_COMMAND}"
        )
