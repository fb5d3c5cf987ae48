"""What a call is made from, and what is forgotten with a subscription."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, delete, select

from ..database.tables.deliveries import delivery_table
from ..states import TaskEvent

EVENTS: Final = tuple(sorted(TaskEvent))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call that is to be made now.

    Attributes:
        delivery_id: Id of the delivery.
        lease: Names the right to make it.
        task_id: Id of the task.
        event: What is told.
        webhook_href: Where to call.
        task_href: What to name as the source.
        message_id: The `webhook-id`.
        sequence: Number of the message.
        attempt: Which attempt at this message or those before it in the same back-off; the first is 1.
        changed_at: When what is told happened.
        status: Status of the task now, in the words of the wire.
        host: Host and port that are called.
    """

    delivery_id: int
    lease: str
    host: str
    task_id: int
    event: TaskEvent
    webhook_href: str
    task_href: str
    message_id: str
    sequence: int
    attempt: int
    changed_at: datetime
    status: str


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
