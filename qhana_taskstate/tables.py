"""Our own tables, beside the five of the QHAna plugin runner. No foreign key to those: its deletes must work."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TIMESTAMP

from .clock import as_utc
from .clock import now as now
from .columntypes import Count, ReadText

#: Constraint names of the plugin runner, which ours follow.
NAMING_CONVENTION: Final = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "ix": "ix_%(table_name)s_%(column_0_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
}

metadata = MetaData(naming_convention=NAMING_CONVENTION)

#: Longest Celery id and name that are kept; Celery's own result table has 155 and 255.
ID_LENGTH: Final = 155
NAME_LENGTH: Final = 255


class UtcTime(TypeDecorator[datetime]):
    """A moment: aware UTC in Python on every database; a naive value counts as UTC.

    One that no column can hold becomes the nearest.
    """

    impl = TIMESTAMP(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        """Choose the column type; MySQL's TIMESTAMP drops fractions and ends in 2038, which DATETIME(6) does not.

        The plugin runner's columns have a type of their own.
        """
        if dialect.name in {"mysql", "mariadb"}:
            return mysql.DATETIME(fsp=6)
        return TIMESTAMP(timezone=True)

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn any aware time into UTC; databases without time zones get it naive."""
        if value is None:
            return None
        moment = as_utc(value)
        return moment if dialect.name == "postgresql" else moment.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return aware UTC."""
        if value is None:
            return None
        return as_utc(value)


_LONG = Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
_LONG_TEXT = ReadText(_LONG)
#: Ids and names as Celery has them: whatever they hold, that a task ran must not be lost.
_ID = ReadText(String(ID_LENGTH))
_NAME = ReadText(String(NAME_LENGTH), cuts=True)
_SERIAL = BigInteger().with_variant(Integer(), "sqlite")

#: What the tracker knows of a task. Its row lock puts the changes of one task in order.
job_table = Table(
    "taskstate_job",
    metadata,
    Column("task_id", Integer, primary_key=True, autoincrement=False),
    #: Random; a message whose header does not carry it is not this task's (ids of a wiped database come again).
    Column("token", ReadText(String(32)), nullable=False),
    Column("open_ended", Boolean, nullable=False, default=False),
    #: Set when a step was added, cleared when work is started from outside: at rest, the task waits.
    Column("parked", Boolean, nullable=False, default=False),
    #: At least one execution was registered, or a hold was released with nothing published.
    Column("had_work", Boolean, nullable=False, default=False),
    Column("end_status", String(16), nullable=True),
    Column("ended_at", UtcTime, nullable=True),
    #: Whether the decided end stands in the `ProcessingTask` row too.
    Column("end_copied", Boolean, nullable=False, default=False),
    Column("created_at", UtcTime, nullable=False, default=now),
)
Index(
    "ix_taskstate_job_uncopied",
    job_table.c.ended_at,
    postgresql_where=job_table.c.end_copied.is_(False) & job_table.c.end_status.is_not(None),
    sqlite_where=job_table.c.end_copied.is_(False) & job_table.c.end_status.is_not(None),
)

#: Keeps a task open while a canvas of several messages is being submitted.
hold_table = Table(
    "taskstate_hold",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("task_id", Integer, nullable=False, index=True),
    Column("created_at", UtcTime, nullable=False, default=now),
    Column("heartbeat_at", UtcTime, nullable=False, default=now),
    #: Messages published so far, as far as it was recorded.
    Column("published", Integer, nullable=False, default=0),
)

#: One Celery message of a task, from publish to its end. A retry or a replacement keeps Celery's id and is a new
#: row; a redelivery is the same one again (celery 5.7: the three are in every message's headers).
execution_table = Table(
    "taskstate_execution",
    metadata,
    Column("task_id", Integer, primary_key=True, autoincrement=False),
    Column("celery_id", _ID, primary_key=True, index=True),
    Column("retries", Count(), primary_key=True, autoincrement=False),
    Column("nesting", Count(), primary_key=True, autoincrement=False),
    Column("name", _NAME, nullable=False),
    Column("state", String(16), nullable=False),
    #: Celery id of the execution that published this one.
    Column("parent_id", _ID, nullable=True),
    Column("queue", _NAME, nullable=True),
    Column("published_at", UtcTime, nullable=True),
    #: Earliest moment it may begin (eta or countdown).
    Column("eta", UtcTime, nullable=True),
    Column("started_at", UtcTime, nullable=True),
    Column("closed_at", UtcTime, nullable=True),
    #: Lease: renewed by the process that runs it.
    Column("heartbeat_at", UtcTime, nullable=True),
    Column("worker", _NAME, nullable=True),
    #: Machine and process namespace in which `pid` means something.
    Column("host", _NAME, nullable=True),
    Column("pid", Count(), nullable=True),
    #: Start time of that process in seconds since the epoch; tells it from a later one with the same pid.
    Column("pid_started", Float(53), nullable=True),
    Column("acks_late", Boolean, nullable=True),
    Column("max_retries", Count(), nullable=True),
    #: How often it was begun.
    Column("deliveries", Integer, nullable=False, default=0),
    #: How often it lost its worker while the broker still had its message.
    Column("losses", Integer, nullable=False, default=0),
    #: When it counts as lost if nobody has begun it by then.
    Column("deadline_at", UtcTime, nullable=True),
    Column("error_type", _NAME, nullable=True),
    Column("error", _LONG_TEXT, nullable=True),
    Column("traceback", _LONG_TEXT, nullable=True),
    Column("progress_value", Float(53), nullable=True),
    Column("progress_start", Float(53), nullable=True),
    Column("progress_target", Float(53), nullable=True),
    Column("progress_unit", ReadText(String(100), cuts=True), nullable=True),
)
#: The look for what is still open: on PostgreSQL and SQLite the index holds only those.
Index(
    "ix_taskstate_execution_open",
    execution_table.c.task_id,
    execution_table.c.closed_at,
    postgresql_where=execution_table.c.closed_at.is_(None),
    sqlite_where=execution_table.c.closed_at.is_(None),
)
#: The look for what nobody has begun yet, oldest first.
Index(
    "ix_taskstate_execution_waiting",
    execution_table.c.closed_at,
    execution_table.c.published_at,
    postgresql_where=execution_table.c.closed_at.is_(None),
    sqlite_where=execution_table.c.closed_at.is_(None),
)

#: The messages of plugin tasks declared `resend=True`, as they were published, until their execution has ended.
message_table = Table(
    "taskstate_message",
    metadata,
    Column("task_id", Integer, primary_key=True, autoincrement=False),
    Column("celery_id", _ID, primary_key=True),
    Column("retries", Count(), primary_key=True, autoincrement=False),
    Column("nesting", Count(), primary_key=True, autoincrement=False),
    Column("exchange", _NAME, nullable=False),
    Column("routing_key", _NAME, nullable=False),
    Column("content_type", _NAME, nullable=False),
    #: Character set of the body; `binary` for one that is no text, which is kept as base64.
    Column("content_encoding", String(32), nullable=False),
    Column("body", _LONG_TEXT, nullable=False),
    #: JSON.
    Column("headers", _LONG_TEXT, nullable=False),
    Column("properties", _LONG_TEXT, nullable=False),
    #: How often it was sent again.
    Column("resends", Integer, nullable=False, default=0),
    Column("created_at", UtcTime, nullable=False, default=now),
)

#: Who does the chores of upkeep now, so that one process at a time does them.
upkeep_table = Table(
    "taskstate_upkeep",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("owner", String(32), nullable=False),
    #: By the database's clock.
    Column("until", UtcTime, nullable=False),
)

#: What subscribers have yet to be told: a row for each change and matching subscription, written with the change.
#: Only ever inserted by those who change a task; merged when deliveries are collected.
change_table = Table(
    "taskstate_change",
    metadata,
    Column("id", _SERIAL, primary_key=True, autoincrement=True),
    Column("subscription_id", Integer, nullable=False, index=True),
    Column("task_id", Integer, nullable=False, index=True),
    Column("event", String(16), nullable=False),
    Column("changed_at", UtcTime, nullable=False),
)

#: The delivery of one event to one subscription: what is owed, how the last call ended, when the next is due. All
#: moments are by the database's clock. The rows of one subscription are made together, so that who locks them all
#: knows that nobody else calls it.
delivery_table = Table(
    "taskstate_delivery",
    metadata,
    Column("id", _SERIAL, primary_key=True, autoincrement=True),
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
    Column("host", _NAME, nullable=False),
    Column("called_at", UtcTime, nullable=True),
    Column("answered_at", UtcTime, nullable=True),
    #: What the last call led to, for people.
    Column("answer", _NAME, nullable=True),
    #: When it was given up.
    Column("dead_at", UtcTime, nullable=True),
)
Index("uq_taskstate_delivery_subscription_id", delivery_table.c.subscription_id, delivery_table.c.event, unique=True)
Index(
    "ix_taskstate_delivery_due_at",
    delivery_table.c.due_at,
    postgresql_where=delivery_table.c.due_at.is_not(None),
    sqlite_where=delivery_table.c.due_at.is_not(None),
)
Index(
    "ix_taskstate_delivery_leased_until",
    delivery_table.c.leased_until,
    postgresql_where=delivery_table.c.leased_until.is_not(None),
    sqlite_where=delivery_table.c.leased_until.is_not(None),
)

#: How a host of receivers behaves: failures in a row, and until when it is left alone.
host_table = Table(
    "taskstate_host",
    metadata,
    Column("name", _NAME, primary_key=True),
    Column("failures", Integer, nullable=False, default=0),
    Column("closed_until", UtcTime, nullable=True),
)

#: The log of a task, append-only; the runner's `task_log` column holds its newest part.
log_table = Table(
    "taskstate_log",
    metadata,
    Column("id", _SERIAL, primary_key=True, autoincrement=True),
    Column("task_id", Integer, nullable=False),
    Column("text", _LONG_TEXT, nullable=False),
    #: Continues the entry before it instead of starting a new line.
    Column("glued", Boolean, nullable=False, default=False),
    Column("created_at", UtcTime, nullable=False, default=now),
)
Index("ix_taskstate_log_newest", log_table.c.task_id, log_table.c.id)

#: What is recorded of a task beside its job row, in the order in which it is removed.
RECORDS: Final = (hold_table, message_table, execution_table, change_table, delivery_table, log_table)
