"""The quick look at a task that waiting for its end repeats."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select

from ..database.tables.runner import step_table, task_table
from ..store.task.steps import is_open_step


@dataclass(frozen=True, slots=True)
class Glance:
    """What `wait` looks at.

    Attributes:
        finished: The task has ended.
        waiting: It waits at a step for input.
    """

    finished: bool
    waiting: bool


def glance(connection: Connection, task_id: int) -> Glance | None:
    """Look at a task; None if there is no such row."""
    row = connection.execute(select(task_table.c.finished_at).where(task_table.c.id == task_id)).one_or_none()
    if row is None:
        return None
    step = connection.execute(select(step_table.c.number).where(is_open_step(task_id)).limit(1)).first()
    return Glance(finished=row.finished_at is not None, waiting=step is not None)
