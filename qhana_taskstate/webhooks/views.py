"""Reads deliveries as people see them, with what became of the last call."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, or_, select

from ..database.tables.deliveries import delivery_table
from ..database.tables.runner import subscription_table


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryView:
    """A delivery as people see it.

    Attributes:
        id: Its id.
        task_id: Id of the task.
        subscription_id: Id of the subscription.
        webhook_href: Where it goes; "" if nobody subscribes there any more.
        event: What it tells.
        state: `calling`, `due`, `waiting`, `dead`, or `told` if nothing is owed.
        sequence: Number of the newest message.
        attempts: Calls in a row without success.
        due_at: When the next call is due.
        called_at: When the last call was made.
        answer: What it led to.
        dead_at: When it was given up.
    """

    id: int
    task_id: int
    subscription_id: int
    webhook_href: str
    event: str
    state: str
    sequence: int
    attempts: int
    due_at: datetime | None
    called_at: datetime | None
    answer: str | None
    dead_at: datetime | None


#: What a view has from the row as it is.
_COPIED: Final = tuple(field.name for field in dataclasses.fields(DeliveryView) if field.name in delivery_table.c)


def views(
    connection: Connection,
    moment: datetime,
    *,
    delivery_ids: Sequence[int] | None = None,
    task_id: int | None = None,
    dead: bool = False,
    limit: int | None = None,
) -> list[DeliveryView]:
    """Return deliveries for people, the newest first.

    Args:
        connection: To read with.
        moment: Now, by the database's clock.
        delivery_ids: Only these; None leaves none out.
        task_id: Only those of this task.
        dead: Only those that were given up.
        limit: How many at most.
    """
    query = select(delivery_table, subscription_table.c.webhook_href).outerjoin(
        subscription_table, subscription_table.c.id == delivery_table.c.subscription_id
    )
    query = query.where(was_owed())
    if delivery_ids is not None:
        query = query.where(delivery_table.c.id.in_(delivery_ids))
    if task_id is not None:
        query = query.where(delivery_table.c.task_id == task_id)
    if dead:
        query = query.where(delivery_table.c.dead_at.is_not(None))
    rows = connection.execute(query.order_by(delivery_table.c.id.desc()).limit(limit))
    return [
        DeliveryView(
            **{name: getattr(row, name) for name in _COPIED},
            webhook_href=row.webhook_href or "",
            state=_state(row, moment),
        )
        for row in rows
    ]


def was_owed() -> ColumnElement[bool]:
    """Leave out the rows of events that nothing was ever owed of: they stand there only to be locked."""
    return or_(delivery_table.c.sequence > 0, delivery_table.c.due_at.is_not(None))


def _state(row: Row[Any], moment: datetime) -> str:
    if row.leased_until is not None and row.leased_until > moment:
        return "calling"
    if row.due_at is not None:
        return "due" if row.due_at <= moment else "waiting"
    return "dead" if row.dead_at is not None else "told"
