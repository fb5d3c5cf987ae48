"""The lock that puts writers of one task in order, and which step of it is open.

Sessions of plugins and web routes lock the `ProcessingTask` row first, then the job row, then `Step` rows. The
tracker's own transactions lock the job row first and never wait for a `ProcessingTask` row after it, so the two
never wait for each other.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Connection, Row, and_, or_, select, update

from .runner_tables import step_table, task_table


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
    if connection.dialect.name == "sqlite":
        # Takes the lock of the whole database. What is read before it may be out of date once it is had.
        connection.execute(
            update(task_table).where(task_table.c.id == task_id).values(current_step=task_table.c.current_step)
        )
    return connection.execute(
        select(task_table.c.id, *columns).where(task_table.c.id == task_id).with_for_update(key_share=True)
    ).one_or_none()


def is_uncleared() -> ColumnElement[bool]:
    """Return the condition for steps that wait for input; NULL counts as not cleared."""
    return or_(step_table.c.cleared.is_(False), step_table.c.cleared.is_(None))


def is_open_step(task_id: int | BindParameter[int]) -> ColumnElement[bool]:
    """Return the condition for the steps of a task that wait for input."""
    return and_(step_table.c.id == task_id, is_uncleared())
