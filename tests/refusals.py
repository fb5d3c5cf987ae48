"""Constraints that an administrator might add to our tables, for the tests of values that a database refuses."""

from __future__ import annotations

import re

from sqlalchemy import Connection, Engine, text

#: What the administrator of a database does not want to have there, by table.
REFUSED = {
    "taskstate_execution": "max_retries = 77 OR progress_unit = 'bananas' OR error LIKE '%sorry%'",
    "taskstate_log": "text LIKE '%\N{LATIN SMALL LETTER A WITH DIAERESIS}%' OR text LIKE '%sorry%'",
}


def refuse(engine: Engine) -> None:
    """Let the database refuse what `REFUSED` says."""
    with engine.begin() as connection:
        # A pooled connection to SQLite still knows triggers that another one dropped, and would not make them again.
        # Before it drops them it compares what it knows with the file.
        _drop(connection)
        for table, condition in REFUSED.items():
            for statement in _statements(connection.dialect.name, table, condition):
                connection.execute(text(statement))


def _statements(dialect: str, table: str, condition: str) -> list[str]:
    if dialect != "sqlite":
        return [f"ALTER TABLE {table} ADD CONSTRAINT unwanted_{table} CHECK (NOT coalesce({condition}, false))"]
    unwanted = re.sub(r"\b(text|max_retries|progress_unit|error)\b", r"NEW.\1", condition)
    return [
        f"CREATE TRIGGER {table}_{change} BEFORE {change} ON {table} WHEN {unwanted} "
        "BEGIN SELECT RAISE(ABORT, 'unwanted'); END"
        for change in ("INSERT", "UPDATE")
    ]


def accept(engine: Engine) -> None:
    """Undo `refuse`."""
    with engine.begin() as connection:
        _drop(connection)


def _drop(connection: Connection) -> None:
    for table in REFUSED:
        if connection.dialect.name != "sqlite":
            connection.execute(text(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS unwanted_{table}"))
            continue
        for change in ("INSERT", "UPDATE"):
            connection.execute(text(f"DROP TRIGGER IF EXISTS {table}_{change}"))
