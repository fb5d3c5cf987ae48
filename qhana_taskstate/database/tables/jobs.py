"""Tables of jobs, of their holds, and of how their progress went."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Float, Index, Integer, String, Table

from ...clock import now
from ..dialects import only_where
from .base import UtcTime, metadata
from .types import ReadText

#: What the recorder knows of a task. Its row lock puts the changes of one task in order.
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
    #: Whether the `ProcessingTask` row shows the decided end too.
    Column("end_copied", Boolean, nullable=False, default=False),
    Column("created_at", UtcTime, nullable=False, default=now),
)


Index(
    "ix_taskstate_job_uncopied",
    job_table.c.ended_at,
    **only_where(job_table.c.end_copied.is_(False) & job_table.c.end_status.is_not(None)),
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


#: The tasks whose progress a plugin has written into their row, where it looks like that of a canvas.
own_progress_table = Table(
    "taskstate_own_progress",
    metadata,
    Column("task_id", Integer, primary_key=True, autoincrement=False),
    Column("created_at", UtcTime, nullable=False, default=now),
)


#: How far a task had come, as upkeep saw it now and then; the older it is, the more seldom.
progress_table = Table(
    "taskstate_progress",
    metadata,
    Column("task_id", Integer, primary_key=True, autoincrement=False),
    Column("at", UtcTime, primary_key=True),
    #: From 0.0 to 1.0.
    Column("share", Float(53), nullable=False),
)
