"""Sends deliveries again that failed for good."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, exists, literal, or_, select, update

from ..database.scripts.statement import announce_after_commit
from ..database.tables.deliveries import delivery_table, host_table
from ..database.tables.runner import subscription_table
from .hosts import host_of
from .views import was_owed

#: How many dead deliveries are replayed in one transaction.
REPLAYS_AT_ONCE: Final = 500


def replay(
    connection: Connection, moment: datetime, *, delivery_ids: Sequence[int] | None = None, task_id: int | None = None
) -> list[int]:
    """Owe deliveries once more; each becomes a new message with a new sequence. The commit is announced.

    The hosts that they go to are called again at once: a person who asks for this has seen to it that they answer.

    Args:
        connection: In whose transaction to write; on SQLite it must hold the write lock.
        moment: Now, by the database's clock.
        delivery_ids: Which; None means those that were given up until now, at most `REPLAYS_AT_ONCE` of them.
        task_id: Only those of this task.

    Returns:
        Ids of those that will be made. Left out are those whose call is under way, and those to which nobody
        subscribes any more.
    """
    wanted = delivery_table.c.dead_at <= moment if delivery_ids is None else delivery_table.c.id.in_(delivery_ids)
    query = select(delivery_table.c.id, delivery_table.c.subscription_id).where(
        wanted,
        was_owed(),
        or_(delivery_table.c.leased_until.is_(None), delivery_table.c.leased_until <= moment),
        exists(select(literal(1)).where(subscription_table.c.id == delivery_table.c.subscription_id)),
    )
    if task_id is not None:
        query = query.where(delivery_table.c.task_id == task_id)
    if delivery_ids is None:
        query = query.limit(REPLAYS_AT_ONCE)
    chosen = connection.execute(
        query.order_by(delivery_table.c.subscription_id, delivery_table.c.event).with_for_update()
    ).all()
    if not chosen:
        return []
    ids = [row.id for row in chosen]
    connection.execute(
        update(delivery_table)
        .where(delivery_table.c.id.in_(ids))
        .values(changed_at=moment, message_id=None, attempts=0, not_before=None, due_at=moment, dead_at=None)
    )
    hrefs = connection.execute(
        select(subscription_table.c.webhook_href).where(
            subscription_table.c.id.in_({row.subscription_id for row in chosen})
        )
    ).scalars()
    connection.execute(
        update(host_table)
        .where(host_table.c.name.in_(sorted({host_of(href) for href in hrefs})))
        .values(closed_until=None)
    )
    announce_after_commit(connection)
    return sorted(ids)
