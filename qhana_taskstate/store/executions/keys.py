"""The key of an execution in the tables: as values, as a condition, and read back from a row."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Integer, String, Table, and_, bindparam

from ...database.tables.executions import execution_table
from ...database.tables.types import LARGEST_INTEGER, nearest_count
from ...facts import ExecutionKey, TaskRef
from .celery_ids import column_id


def key_columns(task_id: int, key: ExecutionKey) -> dict[str, Any]:
    """Return the values of the columns that name an execution."""
    return {
        "task_id": task_id,
        "celery_id": column_id(key.celery_id),
        "retries": key.retries,
        "nesting": key.nesting,
    }


def is_of_key(table: Table, task_id: int, key: ExecutionKey) -> ColumnElement[bool]:
    """Return the condition for the row of an execution in a table that has its key."""
    return and_(*(table.c[name] == value for name, value in key_columns(task_id, key).items()))


def is_named_in(table: Table) -> ColumnElement[bool]:
    """Return the condition for the row of an execution whose key is bound later, by `named`."""
    return and_(
        table.c.task_id == bindparam("of_task"),
        table.c.celery_id == bindparam("of_celery_id", type_=String()),
        table.c.retries == bindparam("of_retries", type_=Integer()),
        table.c.nesting == bindparam("of_nesting", type_=Integer()),
    )


IS_NAMED = is_named_in(execution_table)


def named(ref: TaskRef, key: ExecutionKey) -> dict[str, Any]:
    """Return the values of `IS_NAMED`, as the columns hold them, and of `conditions.IS_JOB`."""
    retries, nesting = key.retries, key.nesting
    return {
        "of_task": ref.task_id,
        "of_token": ref.token,
        "of_celery_id": column_id(key.celery_id),
        "of_retries": retries if -LARGEST_INTEGER <= retries <= LARGEST_INTEGER else nearest_count(retries),
        "of_nesting": nesting if -LARGEST_INTEGER <= nesting <= LARGEST_INTEGER else nearest_count(nesting),
    }


def ref_of(row: Any) -> TaskRef:
    """Return the task that a row with `task_id` and `token` names."""
    return TaskRef(row.task_id, row.token)


def key_of(row: Any) -> ExecutionKey:
    """Return the key that a row names."""
    return ExecutionKey(row.celery_id, row.retries, row.nesting)
