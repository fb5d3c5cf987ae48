"""The five tables of the QHAna plugin runner.

Core statements use them, and the models are mapped on them. Names, columns, types and constraints are the runner's, so
that its databases open unchanged; indexes may be added. What may be NULL there reads as its default. Each text has one
of two rules for what no database takes: what people read is cleaned (`ReadText`), what machines follow is refused
(`FollowedText`).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    literal_column,
    type_coerce,
)

from ...clock import now
from ..dialects import only_where
from .base import metadata
from .columns import JsonDocument, NullAs, RunnerTime, RunnerTimeOr, StatusWord
from .types import FollowedText, ReadText

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
    Column("task_name", NullAs(ReadText(String(500)), ""), nullable=True),
    Column("started_at", RunnerTimeOr(UNKNOWN_MOMENT), default=now, nullable=True),
    Column("finished_at", RunnerTime(), nullable=True),
    Column("parameters", NullAs(ReadText(Text()), ""), default="", nullable=True),
    Column("data", JsonDocument(), default=dict, nullable=True),
    Column("multi_step", NullAs(Boolean(), False), default=False, nullable=True),
    Column("current_step", NullAs(Integer(), -1), default=-1, nullable=True),
    Column("progress_value", Float(), nullable=True),
    Column("progress_start", NullAs(Float(), 0.0), default=0.0, nullable=True),
    Column("progress_target", NullAs(Float(), DEFAULT_TARGET), default=DEFAULT_TARGET, nullable=True),
    Column("progress_unit", NullAs(ReadText(String(100)), "%"), default="%", nullable=True),
    Column("task_status", StatusWord(String(100)), nullable=True),
    #: The newest part of the log; all of it is in `log_table`.
    Column("task_log", ReadText(Text()), default="", nullable=False),
)

#: Words that are compared as they are in the rows: the type of the column would write both for a failure as one.
_word = type_coerce(task_table.c.task_status, String)
_open = task_table.c.finished_at.is_(None)
_failed = _word.in_([literal_column("'ERROR'"), literal_column("'FAILURE'")])
#: The newest tasks that have not ended, and that failed: on PostgreSQL and SQLite these indexes hold no others.
Index(
    "ix_ProcessingTask_open",
    task_table.c.finished_at,
    task_table.c.id,
    **only_where(_open),
)
Index(
    "ix_ProcessingTask_failed",
    task_table.c.task_status,
    task_table.c.id,
    **only_where(_failed),
)

step_table = Table(
    "Step",
    metadata,
    Column("id", Integer, ForeignKey("ProcessingTask.id"), primary_key=True, autoincrement=False),
    Column("step_id", NullAs(FollowedText(String(500), "Step.step_id"), ""), nullable=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("href", NullAs(FollowedText(String(500), "Step.href"), ""), nullable=True),
    Column("ui_href", NullAs(FollowedText(String(500), "Step.ui_href"), ""), nullable=True),
    Column("cleared", NullAs(Boolean(), False), default=False, nullable=True),
    PrimaryKeyConstraint("id", "number"),
)

file_table = Table(
    "TaskFile",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("security_tag", FollowedText(String(64), "TaskFile.security_tag"), nullable=False),
    Column("storage_provider", FollowedText(String(64), "TaskFile.storage_provider"), nullable=False),
    Column("file_name", ReadText(String(500)), nullable=False, index=True),
    Column("file_storage_data", FollowedText(Text(), "TaskFile.file_storage_data"), nullable=False),
    Column("file_type", FollowedText(String(255), "TaskFile.file_type"), nullable=True),
    Column("mimetype", FollowedText(String(255), "TaskFile.mimetype"), nullable=True),
    Column("created_at", RunnerTimeOr(UNKNOWN_MOMENT), default=now, nullable=True),
    Column("task_id", Integer, ForeignKey("ProcessingTask.id"), nullable=True, index=True),
)

link_table = Table(
    "TaskLink",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("type", FollowedText(String(64), "TaskLink.type"), nullable=False),
    Column("href", FollowedText(String(500), "TaskLink.href"), nullable=False),
    Column("task_id", Integer, ForeignKey("ProcessingTask.id"), nullable=True, index=True),
)

subscription_table = Table(
    "TaskUpdateSubscription",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("webhook_href", FollowedText(String(HREF_LENGTH), "TaskUpdateSubscription.webhook_href"), nullable=False),
    Column("task_href", FollowedText(String(HREF_LENGTH), "TaskUpdateSubscription.task_href"), nullable=False),
    Column("event_type", FollowedText(String(64), "TaskUpdateSubscription.event_type"), nullable=True),
    Column("task_id", Integer, ForeignKey("ProcessingTask.id"), nullable=True, index=True),
)
