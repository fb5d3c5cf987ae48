"""A worker and what the tables say of the tasks that it ran."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from celery import Celery
from sqlalchemy import Row, func, select

from qhana_taskstate import ProcessingTask, TaskState
from qhana_taskstate.database.tables.executions import execution_table
from qhana_taskstate.database.tables.jobs import job_table
from qhana_taskstate.testing.container import LocalWorker
from tests.waiting import wait_until


@dataclass(frozen=True)
class Deployment:
    """A worker that knows the tasks of `tests.apps`, and an app in this process that sends to it."""

    app: Celery
    taskstate: TaskState
    worker: LocalWorker

    def executions(self, task_id: int) -> list[Row[Any]]:
        """Read the executions of a task."""
        with self.taskstate.database.reading() as connection:
            return list(connection.execute(select(execution_table).where(execution_table.c.task_id == task_id)))

    def open_executions(self, task_id: int) -> list[tuple[str, str]]:
        """Names and states of the executions that are not closed."""
        return [(row.name, row.state) for row in self.executions(task_id) if row.closed_at is None]

    def job(self, task_id: int) -> Row[Any]:
        """Read the job row of a task."""
        with self.taskstate.database.reading() as connection:
            return connection.execute(select(job_table).where(job_table.c.task_id == task_id)).one()

    def ended_too_early(self) -> list[int]:
        """Tasks that the tables show, in one look, as SUCCESS while one of their executions is open."""
        with self.taskstate.database.reading() as connection:
            rows = connection.execute(
                select(job_table.c.task_id)
                .join(execution_table, execution_table.c.task_id == job_table.c.task_id)
                .where(job_table.c.end_status == "SUCCESS", execution_table.c.closed_at.is_(None))
                .distinct()
            )
            return [row.task_id for row in rows]

    def all_settled(self) -> bool:
        """Tell whether no execution of any task is open."""
        with self.taskstate.database.reading() as connection:
            query = select(func.count()).select_from(execution_table).where(execution_table.c.closed_at.is_(None))
            return connection.execute(query).scalar_one() == 0

    def check_end(self, task: ProcessingTask, *, settles: bool = True, timeout: float = 10) -> None:
        """Assert what holds of every ended task: one end, shown as decided, and nothing open behind a SUCCESS.

        Args:
            task: The task as it was first seen finished.
            settles: Whether its executions all end, if it ended as ERROR; a SUCCESS always has none open.
            timeout: Seconds that executions of a failed task may still take.
        """
        first = self.job(task.id)
        assert first.end_status == task.status
        if task.status == "SUCCESS":
            assert self.open_executions(task.id) == []
        elif settles:
            wait_until(
                "the executions of the failed task are closed",
                lambda: not self.open_executions(task.id),
                timeout=timeout,
            )
        last = self.job(task.id)
        assert (last.end_status, last.ended_at) == (first.end_status, first.ended_at)
        shown = ProcessingTask.get_by_id(task.id)
        assert shown is not None
        assert (shown.status, shown.finished_at) == (task.status, task.finished_at)
        if task.status == "SUCCESS":
            late = [row for row in self.executions(task.id) if row.closed_at is None or row.closed_at > last.ended_at]
            assert late == []
