"""Answers questions about tasks; changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, or_, select

from .models import ProcessingTask, Step
from .settings import Settings

_task = ProcessingTask.__table__
_step = Step.__table__


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
    row = connection.execute(select(_task.c.finished_at).where(_task.c.id == task_id)).one_or_none()
    if row is None:
        return None
    step = connection.execute(
        select(_step.c.number)
        .where(_step.c.id == task_id, or_(_step.c.cleared.is_(False), _step.c.cleared.is_(None)))
        .limit(1)
    ).first()
    return Glance(finished=row.finished_at is not None, waiting=step is not None)


def describe(task: ProcessingTask, settings: Settings) -> dict[str, Any]:
    """Placeholder."""
    return {"status": task.status, "log": task.task_log}
