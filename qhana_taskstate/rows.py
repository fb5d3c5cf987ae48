"""The plugin runner's rows as Core statements see them, and the lock that puts writers of one task in order.

Sessions of plugins and web routes lock the `ProcessingTask` row first, then the job row, then `Step` rows. The
tracker's own transactions lock the job row first and never wait for a `ProcessingTask` row after it, so the two
never wait for each other.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Connection,
    Float,
    Integer,
    Row,
    String,
    Text,
    and_,
    column,
    or_,
    select,
    table,
    update,
)

from .columns import JsonDocument, RunnerTime, StatusWord

#: Largest id that the columns hold (INTEGER of PostgreSQL and MySQL).
LARGEST_ID: Final = 2**31 - 1

task_row = table(
    "ProcessingTask",
    column("id", Integer),
    column("finished_at", RunnerTime()),
    column("data", JsonDocument()),
    column("multi_step", Boolean),
    column("current_step", Integer),
    column("progress_value", Float),
    column("progress_target", Float),
    column("task_status", StatusWord(String(100))),
    column("task_log", Text),
)

step_row = table(
    "Step",
    column("id", Integer),
    column("number", Integer),
    column("step_id", Text),
    column("cleared", Boolean),
)


def lock_task(connection: Connection, task_id: int, *columns: ColumnElement[Any]) -> Row[Any] | None:
    """Lock the row of a task until the transaction ends, and read what is committed in it.

    Rows that refer to it can still be inserted meanwhile on PostgreSQL, where a foreign key needs no more than
    that the key stays.

    Args:
        connection: In whose transaction to lock.
        task_id: Id of the task.
        columns: Columns of `task_row` to read.

    Returns:
        The columns asked for, `id` first; None if there is no such row.
    """
    if connection.dialect.name == "sqlite":
        # Takes the lock of the whole database. What is read before it may be out of date once it is had.
        connection.execute(
            update(task_row).where(task_row.c.id == task_id).values(current_step=task_row.c.current_step)
        )
    return connection.execute(
        select(task_row.c.id, *columns).where(task_row.c.id == task_id).with_for_update(key_share=True)
    ).one_or_none()


def is_open_step(task_id: int) -> ColumnElement[bool]:
    """Return the condition for the steps of a task that wait for input; NULL counts as not cleared."""
    return and_(step_row.c.id == task_id, or_(step_row.c.cleared.is_(False), step_row.c.cleared.is_(None)))
