"""The append-only table of log entries."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Index, Integer, Table

from ...clock import now
from ..dialects import SERIAL
from .base import LONG_TEXT, UtcTime, metadata

#: The log of a task, append-only; the runner's `task_log` column holds its newest part.
log_table = Table(
    "taskstate_log",
    metadata,
    Column("id", SERIAL, primary_key=True, autoincrement=True),
    Column("task_id", Integer, nullable=False),
    Column("text", LONG_TEXT, nullable=False),
    #: Continues the entry before it instead of starting a new line.
    Column("glued", Boolean, nullable=False, default=False),
    Column("created_at", UtcTime, nullable=False, default=now),
)


Index("ix_taskstate_log_newest", log_table.c.task_id, log_table.c.id)
