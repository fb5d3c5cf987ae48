"""The lock of a `ProcessingTask` row.

Sessions of plugins and web routes lock the `ProcessingTask` row first, then the job row, then `Step` rows. The
recorder's own transactions lock the job row first and never wait for a `ProcessingTask` row after it, so the two
never wait for each other.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, false, select, update

from ...database.dialects import kind_of
from ...database.tables.runner import task_table


def lock_database(connection: Connection) -> None:
    """Where one lock is for the whole database (SQLite), take it, so that what is read next stays true."""
    if kind_of(connection.dialect.name).one_writer:
        connection.execute(update(task_table).where(false()).values(current_step=0))


def lock_task(connection: Connection, task_id: int, *columns: ColumnElement[Any]) -> Row[Any] | None:
    """Lock the row of a task until the transaction ends, and read what is committed in it.

    Rows that refer to it can still be inserted meanwhile on PostgreSQL, where a foreign key needs no more than
    that the key stays.

    Args:
        connection: In whose transaction to lock.
        task_id: Id of the task.
        columns: Columns of `task_table` to read.

    Returns:
        The columns asked for, `id` first; None if there is no such row.
    """
    if kind_of(connection.dialect.name).one_writer:
        # Takes the lock of the whole database. What is read before it may be out of date once it is had.
        connection.execute(
            update(task_table).where(task_table.c.id == task_id).values(current_step=task_table.c.current_step)
        )
    return connection.execute(
        select(task_table.c.id, *columns).where(task_table.c.id == task_id).with_for_update(key_share=True)
    ).one_or_none()
