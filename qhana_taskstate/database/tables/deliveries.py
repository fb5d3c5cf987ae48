"""Tables of what subscribers are owed, and of the hosts that are called."""

from __future__ import annotations

from sqlalchemy import Column, Index, Integer, String, Table

from ..dialects import SERIAL, only_where
from .base import NAME, UtcTime, metadata

#: What subscribers have yet to be told: a row for each change and matching subscription, written with the change.
#: Only ever inserted by those who change a task; merged when deliveries are collected.
change_table = Table(
    "taskstate_change",
    metadata,
    Column("id", SERIAL, primary_key=True, autoincrement=True),
    Column("subscription_id", Integer, nullable=False, index=True),
    Column("task_id", Integer, nullable=False, index=True),
    Column("event", String(16), nullable=False),
    Column("changed_at", UtcTime, nullable=False),
)


#: The delivery of one event to one subscription: what is owed, how the last call ended, when the next is due. All
#: moments are by the database's clock. Who locks all rows that one subscription has knows that nobody else calls it.
delivery_table = Table(
    "taskstate_delivery",
    metadata,
    Column("id", SERIAL, primary_key=True, autoincrement=True),
    Column("subscription_id", Integer, nullable=False),
    Column("event", String(16), nullable=False),
    Column("task_id", Integer, nullable=False, index=True),
    #: Of the newest message.
    Column("sequence", Integer, nullable=False, default=0),
    #: Newest change that no message tells of yet.
    Column("changed_at", UtcTime, nullable=True),
    #: `webhook-id` of the message under way or in back-off, and the change that it tells of.
    Column("message_id", String(64), nullable=True),
    Column("message_at", UtcTime, nullable=True),
    #: Calls made in a row without success.
    Column("attempts", Integer, nullable=False, default=0),
    #: Not called again before.
    Column("not_before", UtcTime, nullable=True),
    #: When the next call is due; NULL if none is owed.
    Column("due_at", UtcTime, nullable=True),
    #: Whose call is under way, and until when nobody else may make one.
    Column("lease", String(32), nullable=True),
    Column("leased_until", UtcTime, nullable=True),
    #: Host and port that it is called at.
    Column("host", NAME, nullable=False),
    Column("called_at", UtcTime, nullable=True),
    Column("answered_at", UtcTime, nullable=True),
    #: What the last call led to, for people.
    Column("answer", NAME, nullable=True),
    #: When it was given up.
    Column("dead_at", UtcTime, nullable=True),
)


Index("uq_taskstate_delivery_subscription_id", delivery_table.c.subscription_id, delivery_table.c.event, unique=True)


Index(
    "ix_taskstate_delivery_due_at",
    delivery_table.c.due_at,
    **only_where(delivery_table.c.due_at.is_not(None)),
)


Index(
    "ix_taskstate_delivery_leased_until",
    delivery_table.c.leased_until,
    **only_where(delivery_table.c.leased_until.is_not(None)),
)


#: How a host of receivers behaves: failures in a row, and until when it is left alone.
host_table = Table(
    "taskstate_host",
    metadata,
    Column("name", NAME, primary_key=True),
    Column("failures", Integer, nullable=False, default=0),
    Column("closed_until", UtcTime, nullable=True),
)
