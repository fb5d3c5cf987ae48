"""Writes what the answer to a call means for its deliveries."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, select, update

from ..database.tables.base import NAME_LENGTH
from ..database.tables.deliveries import delivery_table
from ..database.tables.runner import subscription_table
from ..events import TaskEvent
from .call import Call
from .collect import forget, of_subscriptions
from .hosts import judge_host
from .http.answers import Verdict


def settle(
    connection: Connection, call: Call, verdict: Verdict, *, moment: datetime, min_interval_seconds: float
) -> None:
    """Note what a call led to; nothing if somebody else has the right to make it by now.

    Args:
        connection: In whose transaction to write; on SQLite it must hold the write lock.
        call: The call.
        verdict: What its result means.
        moment: Now, by the database's clock.
        min_interval_seconds: Time between the answer to a call that tells of details and the next one.
    """
    this = and_(delivery_table.c.id == call.delivery_id, delivery_table.c.lease == call.lease)
    if verdict.kind == "gone":
        # All rows of the subscription will go; `collect` locks them in this order.
        ids = connection.execute(select(delivery_table.c.subscription_id).where(this)).scalars().all()
        connection.execute(of_subscriptions(ids).with_for_update())
    row = connection.execute(select(delivery_table).where(this).with_for_update()).one_or_none()
    if row is None:
        return
    judge_host(connection, row.host, verdict, moment)
    if verdict.kind == "gone":
        from_subscription = subscription_table.c.id == row.subscription_id
        connection.execute(delete(subscription_table).where(from_subscription))
        forget(connection, row.subscription_id)
        return
    connection.execute(
        update(delivery_table)
        .where(delivery_table.c.id == row.id)
        .values(
            lease=None,
            leased_until=None,
            answered_at=moment,
            answer=verdict.reason[:NAME_LENGTH],
            **_after(row, verdict, moment, min_interval_seconds),
        )
    )


def _after(row: Row[Any], verdict: Verdict, moment: datetime, min_interval_seconds: float) -> dict[str, Any]:
    """Return what a verdict other than "gone" makes of a delivery."""
    # From the answer on, not from the call: a call that was slow on its way is not followed at once.
    earliest = moment + timedelta(seconds=min_interval_seconds if row.event == TaskEvent.DETAILS else 0)
    if verdict.kind == "retry":
        again = max(earliest, moment + timedelta(seconds=verdict.wait_seconds or 0.0))
        return {"not_before": again, "due_at": again}
    ended = {
        "message_id": None,
        "attempts": 0,
        "not_before": earliest,
        # A change that came while the call was under way.
        "due_at": earliest if row.changed_at is not None else None,
    }
    if verdict.kind in {"dead", "refused"}:
        ended.update(attempts=row.attempts, dead_at=moment)
    return ended
