"""Removes a task with all rows that record something of it."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, delete

from ...database.tables.deliveries import change_table, delivery_table
from ...database.tables.executions import execution_table, message_table, work_table
from ...database.tables.jobs import hold_table, job_table, own_progress_table, progress_table
from ...database.tables.log import log_table
from ...database.tables.runner import task_table
from .jobs import lock_job


def remove(connection: Connection, task_id: int) -> None:
    """Remove a task that has no steps, outputs, links or subscribers, with all that was recorded of it."""
    lock_job(connection, task_id)
    for table in (*RECORDS, job_table):
        connection.execute(delete(table).where(table.c.task_id == task_id))
    connection.execute(delete(task_table).where(task_table.c.id == task_id))


#: What is recorded of a task beside its job row, in the order in which it is removed.
RECORDS: Final = (
    hold_table,
    message_table,
    execution_table,
    change_table,
    delivery_table,
    log_table,
    work_table,
    progress_table,
    own_progress_table,
)
