"""Leases of running executions: renews them, and lists them for those who look for silence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, or_, select, update

from ...clock import now
from ...database.tables.base import NAME_LENGTH
from ...database.tables.executions import execution_table
from ...database.tables.jobs import job_table
from ...facts import ExecutionKey, TaskRef
from ...states import ExecutionState
from .keys import is_of_key, key_of, ref_of


def beat(connection: Connection, running: Iterable[tuple[TaskRef, ExecutionKey]]) -> None:
    """Renew the leases of running executions."""
    keys = sorted((ref.task_id, key.celery_id, key.retries, key.nesting) for ref, key in running)
    if keys:
        mine = or_(
            *(
                is_of_key(execution_table, task_id, ExecutionKey(celery_id, retries, nesting))
                for task_id, celery_id, retries, nesting in keys
            )
        )
        connection.execute(
            update(execution_table).where(mine, execution_table.c.closed_at.is_(None)).values(heartbeat_at=now())
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A running execution and the last sign of life of it."""

    ref: TaskRef
    key: ExecutionKey
    name: str
    heartbeat_at: datetime
    worker: str | None
    host: str | None
    pid: int | None
    pid_started: float | None
    acks_late: bool


def running(connection: Connection, *conditions: ColumnElement[bool]) -> list[Lease]:
    """Return running executions: all, or those that meet conditions on their rows."""
    rows = connection.execute(
        select(execution_table, job_table.c.token)
        .join(job_table, job_table.c.task_id == execution_table.c.task_id)
        # All that run have a host; said so that an index finds them among what waits.
        .where(
            is_running(),
            execution_table.c.heartbeat_at.is_not(None),
            execution_table.c.host.is_not(None),
            *conditions,
        )
    )
    return [
        Lease(
            ref=ref_of(row),
            key=key_of(row),
            name=row.name,
            heartbeat_at=row.heartbeat_at,
            worker=row.worker,
            host=row.host,
            pid=row.pid,
            pid_started=row.pid_started,
            acks_late=bool(row.acks_late),
        )
        for row in rows
    ]


def running_in(connection: Connection, host: str, pid: int, pid_started: float, silent_since: datetime) -> list[Lease]:
    """Return executions that are said to run in a process and whose lease was not renewed since a moment.

    Args:
        connection: Where to read.
        host: Where the process runs, as `process.this_host` says.
        pid: Its id.
        pid_started: When it started, as `process.started_at` says.
        silent_since: The moment, aware UTC.
    """
    columns = execution_table.c
    return running(
        connection,
        columns.host == host[:NAME_LENGTH],
        columns.pid == pid,
        columns.pid_started == pid_started,
        columns.heartbeat_at < silent_since,
    )


def is_running() -> ColumnElement[bool]:
    """Return the condition for executions that run."""
    return and_(execution_table.c.closed_at.is_(None), execution_table.c.state == ExecutionState.RUNNING.value)
