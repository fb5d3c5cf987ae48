"""Executions that wait to begin, and since when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, CursorResult, and_, not_, select

from ...database.tables.executions import execution_table
from ...database.tables.jobs import job_table
from ...facts import ExecutionKey, TaskRef
from ...states import ExecutionState
from .keys import key_of, ref_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """An execution that was published to a known queue and that nobody has begun."""

    ref: TaskRef
    key: ExecutionKey
    name: str
    queue: str
    published_at: datetime
    eta: datetime | None
    deliveries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Overdue:
    """An execution that waits to begin beyond its deadline."""

    ref: TaskRef
    key: ExecutionKey
    name: str


#: What `Waiting` says.
_WAITING: Final[tuple[ColumnElement[Any], ...]] = tuple(
    execution_table.c[name]
    for name in ("task_id", "celery_id", "retries", "nesting", "name", "queue", "published_at", "eta", "deliveries")
)


#: Its message went back to the broker, and it is known where it can be looked for.
_went_back: Final = and_(
    execution_table.c.deliveries > 0, execution_table.c.queue.is_not(None), execution_table.c.published_at.is_not(None)
)


def overdue(connection: Connection, moment: datetime, limit: int = 100) -> list[Overdue]:
    """Return executions that wait to begin beyond their deadline, the longest overdue first.

    Those that `went_back` returns are not among them.
    """
    return [
        Overdue(ref=ref_of(row), key=key_of(row), name=row.name)
        for row in _past_deadline(connection, moment, not_(_went_back), limit)
    ]


def went_back(connection: Connection, moment: datetime, limit: int = 100) -> list[Waiting]:
    """Return executions that wait to begin beyond their deadline since their message went back to the broker.

    Behind a backlog it may come later than anybody can tell. Read by themselves, so that many of them, while the
    broker cannot be asked, do not keep those from their end that have nothing but their deadline.
    """
    return [_message(row) for row in _past_deadline(connection, moment, _went_back, limit)]


def _past_deadline(
    connection: Connection, moment: datetime, kind: ColumnElement[bool], limit: int
) -> CursorResult[Any]:
    return connection.execute(
        select(*_WAITING, job_table.c.token)
        .join(job_table, job_table.c.task_id == execution_table.c.task_id)
        .where(
            execution_table.c.closed_at.is_(None),
            execution_table.c.state == ExecutionState.QUEUED.value,
            execution_table.c.deadline_at < moment,
            kind,
        )
        .order_by(execution_table.c.deadline_at)
        .limit(limit)
    )


def _message(row: Any) -> Waiting:
    return Waiting(
        ref=ref_of(row),
        key=key_of(row),
        name=row.name,
        queue=row.queue,
        published_at=row.published_at,
        eta=row.eta,
        deliveries=row.deliveries,
    )


def waiting(connection: Connection, before: datetime, after: datetime | None, limit: int) -> list[Waiting]:
    """Return executions that nobody has begun, oldest publication first.

    Args:
        connection: Where to read.
        before: Only those published before this moment.
        after: Only those published at this moment or later; None for all.
        limit: How many at most.
    """
    published_at = execution_table.c.published_at
    conditions = [
        execution_table.c.closed_at.is_(None),
        published_at < before,
        execution_table.c.state == ExecutionState.QUEUED.value,
        execution_table.c.queue.is_not(None),
    ]
    if after is not None:
        conditions.append(published_at >= after)
    rows = connection.execute(
        select(*_WAITING, job_table.c.token)
        .join(job_table, job_table.c.task_id == execution_table.c.task_id)
        .where(*conditions)
        # The first one is NULL in all of them; PostgreSQL finds the order of the index only if it is named.
        .order_by(execution_table.c.closed_at, published_at)
        .limit(limit)
    )
    return [_message(row) for row in rows]
