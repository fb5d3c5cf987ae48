"""Tells why the database refused something, in words that say what to do."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError

from . import schema
from .database import Database
from .errors import DatabaseUnavailableError, SchemaError


def explain(database: Database, exc: DBAPIError) -> Exception:
    """Tell a missing schema and an absent database from other faults.

    Args:
        database: The database that refused.
        exc: What its driver raised.

    Returns:
        A `SchemaError` or `DatabaseUnavailableError` to be raised instead, or the exception as it was.
    """
    try:
        schema.check(database)
    except (SchemaError, DatabaseUnavailableError) as found:
        return found
    except DBAPIError:
        return exc
    return exc
