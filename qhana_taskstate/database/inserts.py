"""INSERT of rows that may be there already, on every database."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Table

from .dialects import kind_of


@functools.cache
def absent(table: Table, dialect: str) -> Any:
    """Return the INSERT that leaves rows alone whose key is there; its `rowcount` tells how many were inserted."""
    statement = kind_of(dialect).insert_absent(table)
    # SQLAlchemy forgets the count of an INSERT unless it is asked to keep it (2.1 with psycopg: -1).
    return statement.execution_options(preserve_rowcount=True)


def insert_absent(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> int:
    """Insert rows whose key is not there yet; returns how many, or for several rows their number."""
    statement = absent(table, connection.dialect.name)
    if len(rows) == 1:
        return connection.execute(statement, rows[0]).rowcount
    connection.execute(statement, list(rows))
    return len(rows)
