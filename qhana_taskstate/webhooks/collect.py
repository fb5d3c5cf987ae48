"""Merges changes into the deliveries of a subscription, which are forgotten with it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, bindparam, delete, func, select, update

from ..database.inserts import insert_absent
from ..database.tables.deliveries import change_table, delivery_table
from ..database.tables.runner import subscription_table
from ..events import TaskEvent
from .hosts import host_of

#: How many changes are merged in one transaction.
_BATCH: Final = 1000


def collect(connection: Connection, moment: datetime) -> bool:
    """Merge changes into their deliveries.

    Args:
        connection: In whose transaction to write; on SQLite it must hold the write lock.
        moment: Now, by the database's clock.

    Returns:
        Whether there may be more.
    """
    changes = connection.execute(
        select(change_table).order_by(change_table.c.id).limit(_BATCH).with_for_update(skip_locked=True)
    ).all()
    if not changes:
        return False
    connection.execute(delete(change_table).where(change_table.c.id.in_([change.id for change in changes])))
    newest: dict[tuple[int, str], Row[Any]] = {}
    for change in changes:
        newest[change.subscription_id, change.event] = change
    subscriptions = _subscriptions(connection, {subscription_id for subscription_id, _ in newest})
    owed = {
        key: change
        for key, change in newest.items()
        if key[0] in subscriptions and subscriptions[key[0]].task_id == change.task_id
    }
    if owed:
        _merge(connection, moment, owed, subscriptions)
    return len(changes) == _BATCH


def _merge(
    connection: Connection,
    moment: datetime,
    owed: Mapping[tuple[int, str], Row[Any]],
    subscriptions: Mapping[int, Row[Any]],
) -> None:
    """Merge the newest change of each subscription and event; as many statements for one as for a thousand."""
    ids = sorted({subscription_id for subscription_id, _ in owed})
    _prepare(connection, [subscriptions[subscription_id] for subscription_id in ids])
    rows = connection.execute(of_subscriptions(ids).with_for_update()).all()
    merged = [
        {
            "row_id": row.id,
            # Two who collect at once may do so in any order; time must not go back for a receiver.
            "newest": max(filter(None, (changed.changed_at, row.changed_at, row.message_at))),
            "due": row.due_at or max(moment, row.not_before or moment),
        }
        for row in rows
        if (changed := owed.get((row.subscription_id, row.event))) is not None
    ]
    if merged:
        connection.execute(
            update(delivery_table)
            .where(delivery_table.c.id == bindparam("row_id"))
            .values(changed_at=bindparam("newest"), due_at=bindparam("due")),
            merged,
        )


def _subscriptions(connection: Connection, subscription_ids: Collection[int]) -> dict[int, Row[Any]]:
    rows = connection.execute(select(subscription_table).where(subscription_table.c.id.in_(subscription_ids)))
    return {row.id: row for row in rows}


def _prepare(connection: Connection, subscriptions: Sequence[Row[Any]]) -> None:
    """Make the rows of subscriptions that are missing, one for each event."""
    known = {
        row.subscription_id: row
        for row in connection.execute(
            select(delivery_table.c.subscription_id, delivery_table.c.task_id, func.count().label("events"))
            .where(delivery_table.c.subscription_id.in_([subscription.id for subscription in subscriptions]))
            .group_by(delivery_table.c.subscription_id, delivery_table.c.task_id)
        )
    }
    # Of a subscription that was deleted behind our back, and whose id was given out again.
    stale = [one.id for one in subscriptions if one.id in known and known[one.id].task_id != one.task_id]
    if stale:
        connection.execute(delete(delivery_table).where(delivery_table.c.subscription_id.in_(stale)))
    rows = [
        {
            "subscription_id": subscription.id,
            "event": event.value,
            "task_id": subscription.task_id,
            "host": host_of(subscription.webhook_href),
            "sequence": 0,
            "attempts": 0,
        }
        for subscription in subscriptions
        # One of a release that knew fewer events has some of them.
        if subscription.id in stale or subscription.id not in known or known[subscription.id].events < len(TaskEvent)
        for event in sorted(TaskEvent)
    ]
    if rows:
        insert_absent(connection, delivery_table, rows)


def of_subscriptions(subscription_ids: Collection[int]) -> Any:
    """Return the query for the rows of subscriptions, in the order in which they are locked."""
    return (
        select(delivery_table)
        .where(delivery_table.c.subscription_id.in_(subscription_ids))
        .order_by(delivery_table.c.subscription_id, delivery_table.c.event)
    )


def forget(connection: Connection, subscription_id: int) -> None:
    """Remove the deliveries of a subscription that is gone, whose rows the caller has locked.

    Its changes are left to `collect`, which drops them: who holds deliveries must not wait for changes.
    """
    connection.execute(delete(delivery_table).where(delivery_table.c.subscription_id == subscription_id))
