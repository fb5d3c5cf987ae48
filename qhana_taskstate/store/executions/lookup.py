"""Finds executions and tasks by Celery's ids."""

from __future__ import annotations

from sqlalchemy import Connection, case, select

from ...database.tables.executions import execution_table
from ...database.tables.jobs import job_table
from ...facts import ExecutionKey, TaskRef
from ...states import CHORD_UNLOCK
from .celery_ids import column_id
from .heartbeats import is_running
from .registration import known_since


def find_open(
    connection: Connection, celery_id: str, key: ExecutionKey | None = None
) -> tuple[TaskRef, ExecutionKey, str] | None:
    """Find an open execution with a Celery id: its task, key, and the name of the Celery task.

    Args:
        connection: Where to read.
        celery_id: The id.
        key: Only the execution with this key. Without it, one that runs comes before one that only waits, since a
            retry waits under the same id; of several the newest.
    """
    conditions = [execution_table.c.celery_id == column_id(celery_id), execution_table.c.closed_at.is_(None)]
    if key is not None:
        conditions += [execution_table.c.retries == key.retries, execution_table.c.nesting == key.nesting]
    row = connection.execute(
        select(
            execution_table.c.task_id,
            job_table.c.token,
            execution_table.c.retries,
            execution_table.c.nesting,
            execution_table.c.name,
        )
        .join(job_table, job_table.c.task_id == execution_table.c.task_id)
        .where(*conditions)
        .order_by(case((is_running(), 0), else_=1), execution_table.c.nesting.desc(), execution_table.c.retries.desc())
        .limit(1)
    ).first()
    if row is None:
        return None
    return TaskRef(row.task_id, row.token), ExecutionKey(celery_id, row.retries, row.nesting), row.name


def find_task(connection: Connection, celery_id: str) -> TaskRef | None:
    """Find the task that a Celery id belongs to; of several, the one with the newest message of that id."""
    row = connection.execute(
        select(execution_table.c.task_id, job_table.c.token)
        .join(job_table, job_table.c.task_id == execution_table.c.task_id)
        .where(execution_table.c.celery_id == column_id(celery_id))
        .order_by(known_since.desc(), execution_table.c.task_id.desc())
        .limit(1)
    ).first()
    return None if row is None else TaskRef(row.task_id, row.token)


def known_messages(connection: Connection, task_id: int, parent_id: str) -> tuple[set[str], set[str]]:
    """Return the Celery ids of all executions of a task, and of those that one of them has published."""
    rows = connection.execute(
        select(execution_table.c.celery_id, execution_table.c.parent_id).where(execution_table.c.task_id == task_id)
    ).all()
    return {row.celery_id for row in rows}, {row.celery_id for row in rows if row.parent_id == parent_id}


def open_celery_ids(connection: Connection, task_id: int) -> list[str]:
    """Return the Celery ids of a task's open executions that are to be revoked when it is cancelled.

    What waits for the header of a chord is left out: it ends by itself, and only then answers for the body.
    """
    rows = connection.execute(
        select(execution_table.c.celery_id)
        .where(
            execution_table.c.task_id == task_id,
            execution_table.c.closed_at.is_(None),
            execution_table.c.name != CHORD_UNLOCK,
        )
        .distinct()
    )
    return [row.celery_id for row in rows]
