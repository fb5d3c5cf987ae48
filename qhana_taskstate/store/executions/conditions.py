"""Conditions of hot statements, whose values are bound by `named` and `token_of`."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, literal, select

from ...database.tables.executions import execution_table
from ...database.tables.jobs import job_table
from ...database.tables.types import bare_type
from ...facts import TaskRef
from .keys import IS_NAMED

#: An execution that is still open.
THIS = and_(IS_NAMED, execution_table.c.closed_at.is_(None))

#: The job row of the task that a message names, if it carries the task's token.
IS_JOB: ColumnElement[bool] = and_(
    job_table.c.task_id == bindparam("of_task"),
    job_table.c.token == bindparam("of_token", type_=bare_type(job_table.c.token)),
)

#: Whether there is one, for statements that write other rows.
IS_OURS: ColumnElement[bool] = select(literal(1)).where(IS_JOB).exists()


def token_of(ref: TaskRef) -> dict[str, Any]:
    """Return the values of `IS_JOB`."""
    return {"of_task": ref.task_id, "of_token": ref.token}
