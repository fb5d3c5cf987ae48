"""Statements of scripts that add to a log, with the conditions under which they do."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, bindparam, false, insert, select

from ...database.dialects import KINDS
from ...database.inserts import absent
from ...database.scripts.prepared import PerDatabase
from ...database.scripts.statement import Statement
from ...database.tables.jobs import job_table
from ...database.tables.log import log_table
from ...database.tables.runner import task_table
from ...database.tables.types import bare_type
from ..executions.conditions import IS_JOB
from .text import Entry, column_limit, join


def _take_over(dialect: str) -> Any:
    text = select(
        -task_table.c.id,
        task_table.c.id,
        task_table.c.task_log,
        false(),
        bindparam("moment", type_=log_table.c.created_at.type),
    ).where(
        task_table.c.id == bindparam("of_task"),
        task_table.c.task_log != "",
        ~select(log_table.c.id).where(log_table.c.task_id == bindparam("of_task")).exists(),
    )
    columns = ["id", "task_id", "text", "glued", "created_at"]
    return absent(log_table, dialect).from_select(columns, text, include_defaults=False)


#: Makes an entry of the column's text, if there is some and no entry yet.
TAKE_OVER = PerDatabase({name: _take_over(name) for name in KINDS})


def appending(
    values: Mapping[str, Any], entries: Sequence[str], *, unless: ColumnElement[bool] | None = None
) -> list[Statement]:
    """Return the statements that add entries, if a message carries the token of the task; not to the column.

    Args:
        values: Those of `conditions.token_of`, and the `moment`.
        entries: Cleaned, oldest first.
        unless: Add none if this holds, or if the end of the task is decided.
    """
    added = [{**values, "new_text": entry} for entry in entries]
    return [Statement(TAKE_OVER, values), Statement(_insert_line if unless is None else _insert_unless(unless), added)]


def shown(entries: Sequence[str]) -> dict[str, Any]:
    """Return the values by which a statement shows a log that consists of these entries alone."""
    text = join(Entry(entry) for entry in entries)
    if len(text.encode()) > column_limit("mysql"):
        # No number of entries is the right one: what is cut for the column is not cut by a statement.
        return {"log_text": "", "log_count": -1, "log_limit": 0}
    return {"log_text": text, "log_count": len(entries), "log_limit": len(entries) + 1}


_new_line = select(
    job_table.c.task_id,
    bindparam("new_text", type_=bare_type(log_table.c.text)),
    false(),
    bindparam("moment", type_=bare_type(log_table.c.created_at)),
).where(IS_JOB)


def _inserting(rows: Any) -> Any:
    return insert(log_table).from_select(["task_id", "text", "glued", "created_at"], rows, include_defaults=False)


_insert_line = _inserting(_new_line)


@functools.cache
def _insert_unless(condition: ColumnElement[bool]) -> Any:
    return _inserting(_new_line.where(~condition, job_table.c.end_status.is_(None)))
