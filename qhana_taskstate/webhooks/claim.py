"""Claims the calls that are due."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, case, exists, func, or_, select, update

from ..database.tables.deliveries import change_table, delivery_table, host_table
from ..database.tables.runner import subscription_table, task_table
from ..events import TaskEvent
from ..states import UNKNOWN, TaskStatus, with_error_word
from .call import Call
from .collect import forget, of_subscriptions
from .hosts import blocked, host_of, may_be_called


def due(
    connection: Connection, moment: datetime, *, limit: int, besides: Collection[int] = ()
) -> list[tuple[int, str]]:
    """Return subscriptions that are to be called now and their hosts, the longest due first; each is named once.

    Those at hosts that are left alone, or have as many calls under way as they may, are left out: they must not keep
    others waiting.

    Args:
        connection: To read with.
        moment: Now, by the database's clock.
        limit: How many at most.
        besides: Subscriptions to leave out.
    """
    query = select(delivery_table.c.subscription_id, delivery_table.c.host).where(
        delivery_table.c.due_at <= moment, delivery_table.c.host.not_in(blocked(moment))
    )
    if besides:
        query = query.where(delivery_table.c.subscription_id.not_in(besides))
    rows = connection.execute(query.order_by(delivery_table.c.due_at, delivery_table.c.id).limit(limit))
    return list({row.subscription_id: (row.subscription_id, row.host) for row in rows}.values())


def next_due(connection: Connection, moment: datetime) -> datetime | None:
    """Return when the next call may be made, by the database's clock; None if none is owed.

    Those that wait only for another call to their host are left to the run that makes that call.
    """
    earliest = select(func.min(delivery_table.c.due_at)).where(delivery_table.c.host.not_in(blocked(moment)))
    rested = (
        select(func.min(host_table.c.closed_until))
        .select_from(host_table)
        .join(delivery_table, delivery_table.c.host == host_table.c.name)
        .where(host_table.c.closed_until > moment, delivery_table.c.due_at.is_not(None))
    )
    found = [connection.execute(query).scalar() for query in (earliest, rested)]
    return min((at for at in found if at is not None), default=None)


def is_owed(connection: Connection, moment: datetime) -> bool:
    """Tell in one statement whether there are changes to collect or calls to make now."""
    changes = exists().where(change_table.c.id.is_not(None))
    calls = exists().where(delivery_table.c.due_at <= moment, delivery_table.c.host.not_in(blocked(moment)))
    return bool(connection.execute(select(case((or_(changes, calls), 1), else_=0))).scalar())


def claim(
    connection: Connection, subscription_id: int, *, moment: datetime, lease_seconds: float, error_word: str
) -> Call | None:
    """Take the right to make the call of a subscription that is due the longest.

    Args:
        connection: In whose transaction to write; on SQLite it must hold the write lock.
        subscription_id: The subscription.
        moment: Now, by the database's clock.
        lease_seconds: After how long somebody else may make the call.
        error_word: The word for a failed task in what leaves the process.

    Returns:
        The call, to be ended by `settle`; None if there is none to make now: another call of this subscription is
        under way, the host has as many as it may, or is left alone for a while, or nobody subscribes any more.
    """
    rows = connection.execute(_rows_to_lock(subscription_id)).all()
    # A row that was passed over is locked by somebody who claims or settles a call of this subscription.
    if any(row.there > len(rows) or (row.leased_until is not None and row.leased_until > moment) for row in rows):
        return None
    ready = [row for row in rows if row.due_at is not None and row.due_at <= moment]
    if not ready:
        return None
    row = min(ready, key=lambda row: (row.due_at, row.id))
    subscription = connection.execute(
        select(subscription_table, task_table.c.task_status, task_table.c.finished_at)
        .join(task_table, task_table.c.id == subscription_table.c.task_id)
        .where(subscription_table.c.id == subscription_id)
    ).one_or_none()
    if subscription is None or subscription.task_id != row.task_id:
        forget(connection, subscription_id)
        return None
    host = host_of(subscription.webhook_href)
    if not may_be_called(connection, host, moment):
        return None
    call = _call_of(row, subscription, host, moment, error_word)
    _lease(connection, call, moment, moment + timedelta(seconds=lease_seconds))
    return call


def _rows_to_lock(subscription_id: int) -> Any:
    """Return the query that locks the rows of a subscription that are free, and tells how many are `there`."""
    others = delivery_table.alias("others")
    there = select(func.count()).select_from(others).where(others.c.subscription_id == subscription_id)
    query = of_subscriptions([subscription_id]).add_columns(there.scalar_subquery().label("there"))
    return query.with_for_update(skip_locked=True)


def _call_of(row: Row[Any], subscription: Row[Any], host: str, moment: datetime, error_word: str) -> Call:
    """Decide what a call says: the message that failed before, or a new one if something has changed since."""
    goes_on = row.message_id is not None and row.changed_at is None
    return Call(
        delivery_id=row.id,
        lease=secrets.token_hex(8),
        host=host,
        task_id=row.task_id,
        event=TaskEvent(row.event),
        webhook_href=subscription.webhook_href,
        task_href=subscription.task_href,
        message_id=row.message_id if goes_on else f"msg_{secrets.token_hex(16)}",
        sequence=row.sequence if goes_on else row.sequence + 1,
        attempt=1 if row.message_id is None else row.attempts + 1,
        changed_at=row.message_at if goes_on else row.changed_at or moment,
        status=_wire_status(subscription, error_word),
    )


def _lease(connection: Connection, call: Call, moment: datetime, until: datetime) -> None:
    connection.execute(
        update(delivery_table)
        .where(delivery_table.c.id == call.delivery_id)
        .values(
            sequence=call.sequence,
            changed_at=None,
            message_id=call.message_id,
            message_at=call.changed_at,
            attempts=call.attempt,
            # Found again if the process that makes the call does not come back.
            due_at=until,
            lease=call.lease,
            leased_until=until,
            host=call.host,
            called_at=moment,
            dead_at=None,
        )
    )


def _wire_status(task: Any, error_word: str) -> str:
    if task.finished_at is None:
        return TaskStatus.PENDING.value
    return with_error_word(task.task_status, error_word) or UNKNOWN
