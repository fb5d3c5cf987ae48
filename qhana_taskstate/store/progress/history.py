"""How the progress of tasks went over time: samples that upkeep takes, for a curve. Does not commit."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, NamedTuple

from sqlalchemy import Connection, func, insert, select

from ...database.tables.jobs import job_table, progress_table
from ...database.tables.runner import task_table

#: The newest open tasks of which samples are taken.
_MOST_TASKS: Final = 500

#: A task has a sample after each hundredth of its age, so that its curve has some hundred points whatever it takes.
_OF_ITS_AGE: Final = 0.01


class Sample(NamedTuple):
    """How far a task had come.

    Attributes:
        at: When; by the database's clock.
        share: From 0.0 to 1.0.
    """

    at: datetime
    share: float


def due(connection: Connection, moment: datetime) -> dict[int, float]:
    """Return the shares of those open tasks that have reported progress and of which it is time for a sample.

    Args:
        connection: What to read with.
        moment: Now, by the database's clock.
    """
    task = task_table.c
    query = select(task.id, task.started_at, task.progress_value, task.progress_start, task.progress_target)
    query = query.join(job_table, job_table.c.task_id == task.id)
    query = query.where(task.finished_at.is_(None), task.progress_value.is_not(None))
    # In the order of the index of open tasks.
    rows = connection.execute(query.order_by(task.finished_at.desc(), task.id.desc()).limit(_MOST_TASKS)).all()
    if not rows:
        return {}
    last = select(progress_table.c.task_id, func.max(progress_table.c.at))
    last = last.where(progress_table.c.task_id.in_([row.id for row in rows])).group_by(progress_table.c.task_id)
    known = {task_id: at for task_id, at in connection.execute(last)}
    found = {}
    for row in rows:
        pause = max((moment - row.started_at) * _OF_ITS_AGE, timedelta(0))
        if row.id not in known or moment - known[row.id] > pause:
            length = row.progress_target - row.progress_start
            share = (row.progress_value - row.progress_start) / length if length else 1.0
            found[row.id] = min(1.0, max(0.0, share))
    return found


def add(connection: Connection, moment: datetime, shares: dict[int, float]) -> None:
    """Add a sample of each of some tasks."""
    rows = [{"task_id": task_id, "at": moment, "share": share} for task_id, share in sorted(shares.items())]
    if rows:
        connection.execute(insert(progress_table), rows)


def read(connection: Connection, task_id: int) -> list[Sample]:
    """Return the samples of a task, oldest first."""
    query = select(progress_table.c.at, progress_table.c.share).where(progress_table.c.task_id == task_id)
    return [Sample(at, share) for at, share in connection.execute(query.order_by(progress_table.c.at))]
