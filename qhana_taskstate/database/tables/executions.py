"""Tables of executions and of messages that are kept."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Float, Index, Integer, String, Table, and_

from ...clock import now
from ..dialects import kind_of, only_where
from .base import ID, LONG_TEXT, NAME, UtcTime, metadata
from .types import Count, ReadText

#: One Celery message of a task, from publish to its end. A retry or a replacement keeps Celery's id and is a new
#: row; a redelivery is the same one again (celery 5.7: the three are in every message's headers).
execution_table = Table(
    "taskstate_execution",
    metadata,
    Column("task_id", Integer, primary_key=True, autoincrement=False),
    Column("celery_id", ID, primary_key=True, index=True),
    Column("retries", Count(), primary_key=True, autoincrement=False),
    Column("nesting", Count(), primary_key=True, autoincrement=False),
    Column("name", NAME, nullable=False),
    Column("state", String(16), nullable=False),
    #: Celery id of the execution that published this one.
    Column("parent_id", ID, nullable=True),
    Column("queue", NAME, nullable=True),
    Column("published_at", UtcTime, nullable=True),
    #: Earliest moment it may begin (eta or countdown).
    Column("eta", UtcTime, nullable=True),
    Column("started_at", UtcTime, nullable=True),
    Column("closed_at", UtcTime, nullable=True),
    #: Lease: renewed by the process that runs it.
    Column("heartbeat_at", UtcTime, nullable=True),
    Column("worker", NAME, nullable=True),
    #: Machine and process namespace in which `pid` means something.
    Column("host", NAME, nullable=True),
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
    Column("error_type", NAME, nullable=True),
    Column("error", LONG_TEXT, nullable=True),
    Column("traceback", LONG_TEXT, nullable=True),
    Column("progress_value", Float(53), nullable=True),
    Column("progress_start", Float(53), nullable=True),
    Column("progress_target", Float(53), nullable=True),
    Column("progress_unit", ReadText(String(100), cuts=True), nullable=True),
    #: 32 hexadecimal digits, where OpenTelemetry traces.
    Column("trace_id", String(32), nullable=True),
)


#: The look for one execution while it is open, and for whatever of its task is: it holds only those, so that it costs
#: the same in a canvas of ten thousand members.
Index(
    "ix_taskstate_execution_open_id",
    execution_table.c.task_id,
    execution_table.c.celery_id,
    **only_where(execution_table.c.closed_at.is_(None)),
).ddl_if(callable_=lambda *given, dialect, **_: kind_of(dialect.name).partial_indexes)


#: The look for whatever of a task is open where an index holds all rows. One execution is found by its key there.
Index("ix_taskstate_execution_open", execution_table.c.task_id, execution_table.c.closed_at).ddl_if(
    callable_=lambda *given, dialect, **_: not kind_of(dialect.name).partial_indexes
)


#: The look for what nobody has begun yet, oldest first.
Index(
    "ix_taskstate_execution_waiting",
    execution_table.c.closed_at,
    execution_table.c.published_at,
    **only_where(execution_table.c.closed_at.is_(None)),
)


#: The look for what runs on one machine, or in one process; what waits in a queue is not among it.
Index(
    "ix_taskstate_execution_host",
    execution_table.c.closed_at,
    execution_table.c.host,
    execution_table.c.pid,
    **only_where(and_(execution_table.c.closed_at.is_(None), execution_table.c.host.is_not(None))),
)


#: The messages of plugin tasks declared `resend=True`, as they were published, until their execution has ended.
message_table = Table(
    "taskstate_message",
    metadata,
    Column("task_id", Integer, primary_key=True, autoincrement=False),
    Column("celery_id", ID, primary_key=True),
    Column("retries", Count(), primary_key=True, autoincrement=False),
    Column("nesting", Count(), primary_key=True, autoincrement=False),
    Column("exchange", NAME, nullable=False),
    Column("routing_key", NAME, nullable=False),
    Column("content_type", NAME, nullable=False),
    #: Character set of the body; `binary` for one that is no text, which is kept as base64.
    Column("content_encoding", String(32), nullable=False),
    Column("body", LONG_TEXT, nullable=False),
    #: JSON.
    Column("headers", LONG_TEXT, nullable=False),
    Column("properties", LONG_TEXT, nullable=False),
    #: How often it was sent again.
    Column("resends", Integer, nullable=False, default=0),
    Column("created_at", UtcTime, nullable=False, default=now),
)


#: The first work of tasks that may be started again, as it was submitted, until the task is pruned.
work_table = Table(
    "taskstate_work",
    metadata,
    Column("task_id", Integer, primary_key=True, autoincrement=False),
    Column("content_type", NAME, nullable=False),
    #: Character set of the body; `binary` for one that is no text, which is kept as base64.
    Column("content_encoding", String(32), nullable=False),
    #: The canvas with its arguments, and the options of its start.
    Column("body", LONG_TEXT, nullable=False),
    Column("created_at", UtcTime, nullable=False, default=now),
)
