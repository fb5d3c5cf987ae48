"""The table of how the progress of tasks went over time."""

from __future__ import annotations

from sqlalchemy import Column, Float, Integer, Table

from .base import UtcTime, metadata

#: How far a task had come, as upkeep saw it now and then; the older it is, the more seldom.
progress_table = Table(
    "taskstate_progress",
    metadata,
    Column("task_id", Integer, primary_key=True, autoincrement=False),
    Column("at", UtcTime, primary_key=True),
    #: From 0.0 to 1.0.
    Column("share", Float(53), nullable=False),
)
