"""The five tables of the QHAna plugin runner, each once: Core statements use them, the models are mapped on them.

Names, columns, types and constraints are the runner's, so that its databases open unchanged; indexes may be added.
What may be NULL there reads as its default.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Boolean, Column, Float, ForeignKey, Integer, PrimaryKeyConstraint, String, Table, Text

from .clock import now
from .columns import JsonDocument, NullAs, RunnerTime, RunnerTimeOr, StatusWord
from .tables import metadata

#: How many characters the columns for URLs hold.
HREF_LENGTH: Final = 500

#: What a moment that is NULL in the database of a plugin runner reads as; it sorts before every real one.
UNKNOWN_MOMENT: Final = datetime(1970, 1, 1, tzinfo=UTC)

#: What a target of progress that is NULL there reads as.
DEFAULT_TARGET: Final = 100.0

task_table = Table(
    "ProcessingTask",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("task_name", NullAs(String(500), ""), nullable=True),
    Column("started_at", RunnerTimeOr(UNKNOWN_MOMENT), default=now, nullable=True),
    Column("finished_at", RunnerTime(), nullable=True),
    Column("parameters", NullAs(Text(), ""), default="", nullable=True),
    Column("data", JsonDocument(), default=dict, nullable=True),
    Column("multi_step", NullAs(Boolean(), False), default=False, nullable=True),
    Column("current_step", NullAs(Integer(), -1), default=-1, nullable=True),
    Column("progress_value", Float(), nullable=True),
    Column("progress_start", NullAs(Float(), 0.0), default=0.0, nullable=True),
    Column("progress_target", NullAs(Float(), DEFAULT_TARGET), default=DEFAULT_TARGET, nullable=True),
    Column("progress_unit", NullAs(String(100), "%"), default="%", nullable=True),
    Column("task_status", StatusWord(String(100)), nullable=True),
    #: The newest part of the log; all of it is in `log_table`.
    Column("task_log", Text(), default="", nullable=False),
)

step_table = Table(
    "Step",
    metadata,
    Column("id", Integer, ForeignKey("ProcessingTask.id"), primary_key=True, autoincrement=False),
    Column("step_id", NullAs(String(500), ""), nullable=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("href", NullAs(String(500), ""), nullable=True),
    Column("ui_href", NullAs(String(500), ""), nullable=True),
    Column("cleared", NullAs(Boolean(), False), default=False, nullable=True),
    PrimaryKeyConstraint("id", "number"),
)

file_table = Table(
    "TaskFile",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("security_tag", String(64), nullable=False),
    Column("storage_provider", String(64), nullable=False),
    Column("file_name", String(500), nullable=False, index=True),
    Column("file_storage_data", Text(), nullable=False),
    Column("file_type", String(255), nullable=True),
    Column("mimetype", String(255), nullable=True),
    Column("created_at", RunnerTimeOr(UNKNOWN_MOMENT), default=now, nullable=True),
    Column("task_id", Integer, ForeignKey("ProcessingTask.id"), nullable=True, index=True),
)

link_table = Table(
    "TaskLink",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("type", String(64), nullable=False),
    Column("href", String(500), nullable=False),
    Column("task_id", Integer, ForeignKey("ProcessingTask.id"), nullable=True, index=True),
)

subscription_table = Table(
    "TaskUpdateSubscription",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("webhook_href", String(HREF_LENGTH), nullable=False),
    Column("task_href", String(HREF_LENGTH), nullable=False),
    Column("event_type", String(64), nullable=True),
    Column("task_id", Integer, ForeignKey("ProcessingTask.id"), nullable=True, index=True),
)
