"""Reads tasks: one, many, or those that wait."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, String, func, or_, select, type_coerce

from ..database.tables.executions import execution_table
from ..database.tables.jobs import hold_table, job_table
from ..database.tables.runner import subscription_table, task_table
from ..settings.values import Settings
from ..states import ERROR_WORDS, UNKNOWN, ExecutionState, TaskStatus, with_error_word
from ..store.log import entries
from .doing import activities_of, status_of
from .rows.executions import executions
from .rows.parts import Addresses, links_of, outputs_of, steps_of, waiting_steps
from .rows.query import IDS_AT_ONCE, task_query
from .rows.views import TaskDetail, TaskView, maybe_progress


def list_tasks(
    connection: Connection,
    settings: Settings,
    *,
    status: str | None = None,
    name: str | None = None,
    before: int | None = None,
    limit: int = 50,
) -> list[TaskView]:
    """Return a page of tasks, newest first.

    Args:
        connection: What to read with.
        settings: Say the word for a failed task.
        status: Only tasks with this status: PENDING, SUCCESS, ERROR (FAILURE means the same), UNKNOWN, or another
            word of old rows.
        name: Only tasks whose name contains this text, in any case.
        before: Only tasks with a smaller id; pass the last id of one page to get the next.
        limit: How many at most.
    """
    query = task_query().order_by(task_table.c.id.desc()).limit(limit)
    if status is not None:
        query = query.where(_has_status(status))
    if name:
        query = query.where(func.lower(task_table.c.task_name).contains(name.lower(), autoescape=True))
    if before is not None:
        query = query.where(task_table.c.id < before)
    return _task_views(connection, settings, query)


def open_task_ids(connection: Connection) -> list[int]:
    """Return the ids of the tasks that were given to us and have not ended, oldest first."""
    query = (
        select(task_table.c.id)
        .join(job_table, job_table.c.task_id == task_table.c.id)
        .where(task_table.c.finished_at.is_(None))
        .order_by(task_table.c.id)
    )
    return list(connection.execute(query).scalars())


def silent_task_ids(connection: Connection, before: datetime) -> list[int]:
    """Return open tasks that nothing seems to bring to an end.

    They are neither open-ended nor at a step, no submission is under way, nothing of them runs, and what of them is
    queued was to begin before a moment.

    Args:
        connection: Where to read.
        before: That moment, aware UTC.
    """
    its = execution_table.c.task_id == job_table.c.task_id
    lively = or_(
        execution_table.c.state == ExecutionState.RUNNING.value,
        func.coalesce(execution_table.c.eta, execution_table.c.published_at, before) > before,
    )
    rows = connection.execute(
        select(job_table.c.task_id)
        .where(
            job_table.c.end_status.is_(None),
            job_table.c.open_ended.is_(False),
            job_table.c.parked.is_(False),
            job_table.c.had_work.is_(True),
            func.coalesce(job_table.c.created_at, before) <= before,
            ~select(hold_table.c.id).where(hold_table.c.task_id == job_table.c.task_id).exists(),
            ~select(execution_table.c.task_id).where(its, execution_table.c.closed_at.is_(None), lively).exists(),
            ~select(execution_table.c.task_id).where(its, execution_table.c.closed_at > before).exists(),
        )
        .order_by(job_table.c.task_id)
        .limit(IDS_AT_ONCE)
    )
    return [row.task_id for row in rows]


def get_tasks(connection: Connection, settings: Settings, task_ids: Iterable[int]) -> list[TaskView]:
    """Return the tasks with these ids, by id; those that do not exist are left out."""
    wanted = sorted(set(task_ids))
    found: list[TaskView] = []
    for position in range(0, len(wanted), IDS_AT_ONCE):
        some = wanted[position : position + IDS_AT_ONCE]
        found += _task_views(
            connection, settings, task_query().where(task_table.c.id.in_(some)).order_by(task_table.c.id)
        )
    return found


def show(connection: Connection, settings: Settings, task_id: int) -> TaskDetail | None:
    """Return all that is known of a task; None if there is no such row."""
    tasks = get_tasks(connection, settings, [task_id])
    if not tasks:
        return None
    job = connection.execute(
        select(job_table.c.end_status, job_table.c.parked).where(job_table.c.task_id == task_id)
    ).one_or_none()
    its_executions = tuple(executions(connection, task_id))
    steps = steps_of(connection, task_id)
    if steps and tasks[0].finished and job is not None and (job.parked or not its_executions):
        # Every end clears the open step; an answer starts work, after which the task no longer rests.
        steps[-1] = replace(steps[-1], unanswered=True)
    return TaskDetail(
        task=tasks[0],
        decided_status=with_error_word(job.end_status, settings.error_status) if job is not None else None,
        steps=tuple(steps),
        outputs=tuple(outputs_of(connection, task_id, Addresses(settings))),
        links=tuple(links_of(connection, task_id)),
        subscriptions=_count(connection, subscription_table.c.task_id == task_id),
        holds=_count(connection, hold_table.c.task_id == task_id),
        log=entries.read(connection, task_id),
        executions=its_executions,
    )


def _has_status(status: str) -> ColumnElement[bool]:
    if status == TaskStatus.PENDING:
        return task_table.c.finished_at.is_(None)
    ended = task_table.c.finished_at.is_not(None)
    if status == UNKNOWN:
        return ended & task_table.c.task_status.is_(None)
    words = ERROR_WORDS if status in ERROR_WORDS else {status}
    # As plain text: the column's own type writes both words for a failure as the one that is set, but old rows may
    # hold either.
    return ended & type_coerce(task_table.c.task_status, String).in_(sorted(words))


def _task_views(connection: Connection, settings: Settings, query: Select[Any]) -> list[TaskView]:
    rows = connection.execute(query).all()
    waiting = waiting_steps(connection, [row.id for row in rows if row.finished_at is None])
    activities = activities_of(connection, settings, rows, waiting)
    return [
        TaskView(
            id=row.id,
            task_name=row.task_name or "",
            status=status_of(row.finished_at, row.task_status, settings),
            started_at=row.started_at,
            finished_at=row.finished_at,
            progress=maybe_progress(row.progress_value, row.progress_start, row.progress_target, row.progress_unit),
            tracked=bool(row.tracked),
            open_ended=bool(row.open_ended),
            waiting_step=waiting.get(row.id),
            activity=activities[row.id],
        )
        for row in rows
    ]


def _count(connection: Connection, condition: ColumnElement[bool]) -> int:
    return connection.execute(select(func.count()).where(condition)).scalar_one()
