"""The outbox: a row for each change and subscription, written in the transaction of the change.

Rows are only inserted here, never looked at: merging while they are written would lose the last change, or let those
who change a task wait for each other. Nothing here commits.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    String,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    union_all,
)

from ...clock import now
from ...database.scripts.statement import announce_after_commit
from ...database.sessions.current import current_settings
from ...database.tables.deliveries import change_table, delivery_table
from ...database.tables.jobs import job_table
from ...database.tables.runner import subscription_table, task_table
from ...database.tables.types import bare_type
from ...events import TaskEvent
from .locks import lock_task

#: A subscription to a task that has ended is owed only this.
_END: Final = TaskEvent.STATUS

#: First key of PostgreSQL's advisory locks of those who subscribe; the second is the id of the task.
_SUBSCRIBING: Final = 0x71737562

_COLUMNS: Final = ("subscription_id", "task_id", "event", "changed_at")
_moment: Final = bindparam("moment", type_=bare_type(change_table.c.changed_at))


def add(connection: Connection, task_id: int, events: Collection[TaskEvent]) -> bool:
    """Owe events of a task to all subscriptions that match; the commit is announced if there are any.

    The caller holds the job row of the task, or that of the `ProcessingTask` where there is no job row, in an earlier
    statement of the transaction: so a subscription made at the same moment sees the change or is seen here.

    Args:
        connection: In whose transaction to write.
        task_id: Id of the task.
        events: What happened.

    Returns:
        Whether there is anybody to tell.
    """
    if not events:
        return False
    return _insert(connection, _owe(frozenset(events)), task_id)


def _insert(connection: Connection, statement: Any, task_id: int) -> bool:
    if not current_settings().webhooks:
        # The host tells them itself.
        return False
    owed = connection.execute(statement, {"of_task": task_id, "moment": now()})
    if owed.rowcount <= 0:
        return False
    announce_after_commit(connection)
    return True


def owing(conditions: Mapping[TaskEvent, ColumnElement[bool]]) -> Any:
    """Return the statement that owes each event whose condition holds to the subscriptions that match it.

    It takes `of_task` and the `moment`. The caller holds what `add` asks for.
    """
    return _owing(union_all(*(_matching(event).where(condition) for event, condition in conditions.items())))


def _owing(rows: Any) -> Any:
    # SQLAlchemy forgets the count of an INSERT unless it is asked to keep it (2.1 with psycopg: -1).
    statement = insert(change_table).from_select(_COLUMNS, rows, include_defaults=False)
    return statement.execution_options(preserve_rowcount=True)


def _matching(event: TaskEvent) -> Any:
    """Return the query for the rows that owe an event to the subscriptions that match it."""
    return select(subscription_table.c.id, subscription_table.c.task_id, literal(event.value, String), _moment).where(
        subscription_table.c.task_id == bindparam("of_task"),
        or_(subscription_table.c.event_type.is_(None), subscription_table.c.event_type == literal(event.value, String)),
    )


@functools.cache
def _owe(events: frozenset[TaskEvent]) -> Any:
    """Return the statement that owes these events; built once, as it is sent at every change."""
    parts = [_matching(event) for event in sorted(events)]
    return _owing(parts[0] if len(parts) == 1 else union_all(*parts))


def lock(connection: Connection, task_id: int) -> None:
    """Put a change of a task, made in a session, in order with subscriptions and other ends of it.

    To be called shortly before the session's commit. A share of the job row's lock is enough; what ends the task
    or subscribes to it takes the whole.
    """
    locked = connection.execute(
        select(job_table.c.task_id).where(job_table.c.task_id == task_id).with_for_update(read=True)
    ).first()
    if locked is None:
        lock_task(connection, task_id)


def lock_for_subscription(connection: Connection, task_id: int) -> None:
    """Put a new subscription in order with everything that changes its task, and with other subscriptions to it.

    Locks the row of the task first where a row that refers to it will wait for that lock anyway: whoever holds a job
    row must not wait for a `ProcessingTask` row.
    """
    if connection.dialect.name != "postgresql":
        # SQLite: takes the lock of the whole database. MariaDB: a foreign key asks for a share of it.
        lock_task(connection, task_id)
    locked = connection.execute(
        select(job_table.c.task_id).where(job_table.c.task_id == task_id).with_for_update()
    ).first()
    if locked is None:
        lock_task(connection, task_id)
    if connection.dialect.name == "postgresql":
        # Of two callers, one may have found no job row and the other one that was made just then: they hold
        # different rows, and this lock puts them in order. It is taken last, so that its holder waits for no row.
        connection.execute(select(func.pg_advisory_xact_lock(_SUBSCRIBING, task_id)))


def owe_end(connection: Connection, task_id: int) -> bool:
    """Owe the end of a task to those of its subscriptions that were owed nothing before, if it has ended.

    The caller has used `lock_for_subscription` in an earlier statement.

    Returns:
        Whether there was one.
    """
    never_told = ~or_(
        exists().where(
            change_table.c.subscription_id == subscription_table.c.id,
            change_table.c.task_id == subscription_table.c.task_id,
        ),
        exists().where(
            delivery_table.c.subscription_id == subscription_table.c.id,
            delivery_table.c.task_id == subscription_table.c.task_id,
        ),
    )
    ended = exists().where(task_table.c.id == subscription_table.c.task_id, task_table.c.finished_at.is_not(None))
    return _insert(connection, _owing(_matching(_END).where(never_told, ended)), task_id)


def forget_free_ids(connection: Connection) -> None:
    """Remove what is known of deliveries to removed subscriptions whose ids are given out again.

    To be called before a subscription is inserted. Only SQLite gives ids out again: the one after the largest that is
    there.
    """
    if connection.dialect.name != "sqlite":
        return
    largest = select(func.coalesce(func.max(subscription_table.c.id), 0)).scalar_subquery()
    for owed in (change_table, delivery_table):
        connection.execute(delete(owed).where(owed.c.subscription_id > largest))
