"""Tells why the database refused something, in words that say what to do."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError

from ..errors import DatabaseUnavailableError, SchemaError
from . import schema as database_schema
from .engine import Database
from .faults import is_gone


def explain(database: Database, exc: DBAPIError) -> Exception:
    """Tell a missing schema and an absent database from other faults.

    Args:
        database: The database that refused.
        exc: What its driver raised.

    Returns:
        A `SchemaError` or `DatabaseUnavailableError` to be raised instead, or the exception as it was.
    """
    try:
        database_schema.check(database)
    except (SchemaError, DatabaseUnavailableError) as found:
        return found
    except DBAPIError:
        pass
    if is_gone(exc):
        # It is back already.
        return DatabaseUnavailableError(
            f"the database {database.name} could not be reached for a moment: {' '.join(str(exc.orig).split())}; "
            "try again"
        )
    return exc
