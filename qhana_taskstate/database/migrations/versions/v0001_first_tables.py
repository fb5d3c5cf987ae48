"""Make the tables of the plugin runner where they are missing, and ours.

A database that the runner's own migrations made keeps its tables and rows; it only gains indexes on the columns
that refer to a task, which every read of outputs, links and subscriptions uses.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

#: The log holds any text. A server's own default may be latin1.
_OURS: dict[str, Any] = {"mysql_charset": "utf8mb4", "mariadb_charset": "utf8mb4"}


def upgrade() -> None:
    """Bring an empty database, or one of a plugin runner, to this version."""
    present = set(sa.inspect(op.get_bind()).get_table_names())
    if "ProcessingTask" not in present:
        _create_processing_task()
    if "Step" not in present:
        _create_step()
    if "TaskFile" not in present:
        _create_task_file()
    if "TaskLink" not in present:
        _create_task_link()
    if "TaskUpdateSubscription" not in present:
        _create_task_update_subscription()
    for table in ("TaskFile", "TaskLink", "TaskUpdateSubscription"):
        _index_task_id(table)
    _create_job()
    _create_hold()
    _create_execution()
    _create_upkeep()
    _create_log()
    _create_change()
    _create_delivery()
    _create_host()
    _create_message()


def _runner_time() -> sa.types.TypeEngine[Any]:
    return sa.TIMESTAMP(timezone=True)


def _our_time() -> sa.types.TypeEngine[Any]:
    return sa.TIMESTAMP(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def _long_text() -> sa.types.TypeEngine[str]:
    return sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")


def _task_reference(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["task_id"], ["ProcessingTask.id"], name=f"fk_{table}_task_id_ProcessingTask")


def _create_processing_task() -> None:
    op.create_table(
        "ProcessingTask",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("task_name", sa.String(500), nullable=True),
        sa.Column("started_at", _runner_time(), nullable=True),
        sa.Column("finished_at", _runner_time(), nullable=True),
        sa.Column("parameters", sa.Text(), nullable=True),
        sa.Column("data", sa.JSON(), nullable=True),
        sa.Column("multi_step", sa.Boolean(), nullable=True),
        sa.Column("current_step", sa.Integer(), nullable=True),
        sa.Column("progress_value", sa.Float(), nullable=True),
        sa.Column("progress_start", sa.Float(), nullable=True),
        sa.Column("progress_target", sa.Float(), nullable=True),
        sa.Column("progress_unit", sa.String(100), nullable=True),
        sa.Column("task_status", sa.String(100), nullable=True),
        sa.Column("task_log", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ProcessingTask"),
        **_OURS,
    )


def _create_step() -> None:
    op.create_table(
        "Step",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("step_id", sa.String(500), nullable=True),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("href", sa.String(500), nullable=True),
        sa.Column("ui_href", sa.String(500), nullable=True),
        sa.Column("cleared", sa.Boolean(), nullable=True),
        sa.ForeignKeyConstraint(["id"], ["ProcessingTask.id"], name="fk_Step_id_ProcessingTask"),
        sa.PrimaryKeyConstraint("id", "number", name="pk_Step"),
        **_OURS,
    )


def _create_task_file() -> None:
    op.create_table(
        "TaskFile",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("security_tag", sa.String(64), nullable=False),
        sa.Column("storage_provider", sa.String(64), nullable=False),
        sa.Column("file_name", sa.String(500), nullable=False),
        sa.Column("file_storage_data", sa.Text(), nullable=False),
        sa.Column("file_type", sa.String(255), nullable=True),
        sa.Column("mimetype", sa.String(255), nullable=True),
        sa.Column("created_at", _runner_time(), nullable=True),
        sa.Column("task_id", sa.Integer(), nullable=True),
        _task_reference("TaskFile"),
        sa.PrimaryKeyConstraint("id", name="pk_TaskFile"),
        **_OURS,
    )
    op.create_index("ix_TaskFile_file_name", "TaskFile", ["file_name"])


def _create_task_link() -> None:
    op.create_table(
        "TaskLink",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("type", sa.String(64), nullable=False),
        sa.Column("href", sa.String(500), nullable=False),
        sa.Column("task_id", sa.Integer(), nullable=True),
        _task_reference("TaskLink"),
        sa.PrimaryKeyConstraint("id", name="pk_TaskLink"),
        **_OURS,
    )


def _create_task_update_subscription() -> None:
    op.create_table(
        "TaskUpdateSubscription",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("webhook_href", sa.String(500), nullable=False),
        sa.Column("task_href", sa.String(500), nullable=False),
        sa.Column("event_type", sa.String(64), nullable=True),
        sa.Column("task_id", sa.Integer(), nullable=True),
        _task_reference("TaskUpdateSubscription"),
        sa.PrimaryKeyConstraint("id", name="pk_TaskUpdateSubscription"),
        **_OURS,
    )


def _index_task_id(table: str) -> None:
    indexes = sa.inspect(op.get_bind()).get_indexes(table)
    if not any(index["name"] == f"ix_{table}_task_id" for index in indexes):
        op.create_index(f"ix_{table}_task_id", table, ["task_id"])


def _create_job() -> None:
    op.create_table(
        "taskstate_job",
        sa.Column("task_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("token", sa.String(32), nullable=False),
        sa.Column("open_ended", sa.Boolean(), nullable=False),
        sa.Column("parked", sa.Boolean(), nullable=False),
        sa.Column("had_work", sa.Boolean(), nullable=False),
        sa.Column("end_status", sa.String(16), nullable=True),
        sa.Column("ended_at", _our_time(), nullable=True),
        sa.Column("end_copied", sa.Boolean(), nullable=False),
        sa.Column("created_at", _our_time(), nullable=False),
        sa.PrimaryKeyConstraint("task_id", name="pk_taskstate_job"),
        **_OURS,
    )
    uncopied = sa.and_(sa.column("end_copied").is_(sa.false()), sa.column("end_status").is_not(None))
    op.create_index(
        "ix_taskstate_job_uncopied",
        "taskstate_job",
        ["ended_at"],
        postgresql_where=uncopied,
        sqlite_where=uncopied,
    )


def _create_hold() -> None:
    op.create_table(
        "taskstate_hold",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("created_at", _our_time(), nullable=False),
        sa.Column("heartbeat_at", _our_time(), nullable=False),
        sa.Column("published", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_taskstate_hold"),
        **_OURS,
    )
    op.create_index("ix_taskstate_hold_task_id", "taskstate_hold", ["task_id"])


def _create_execution() -> None:
    op.create_table(
        "taskstate_execution",
        sa.Column("task_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("celery_id", sa.String(155), nullable=False),
        sa.Column("retries", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("nesting", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("parent_id", sa.String(155), nullable=True),
        sa.Column("queue", sa.String(255), nullable=True),
        sa.Column("published_at", _our_time(), nullable=True),
        sa.Column("eta", _our_time(), nullable=True),
        sa.Column("started_at", _our_time(), nullable=True),
        sa.Column("closed_at", _our_time(), nullable=True),
        sa.Column("heartbeat_at", _our_time(), nullable=True),
        sa.Column("worker", sa.String(255), nullable=True),
        sa.Column("host", sa.String(255), nullable=True),
        sa.Column("pid", sa.Integer(), nullable=True),
        sa.Column("pid_started", sa.Float(53), nullable=True),
        sa.Column("acks_late", sa.Boolean(), nullable=True),
        sa.Column("max_retries", sa.Integer(), nullable=True),
        sa.Column("deliveries", sa.Integer(), nullable=False),
        sa.Column("losses", sa.Integer(), nullable=False),
        sa.Column("deadline_at", _our_time(), nullable=True),
        sa.Column("error_type", sa.String(255), nullable=True),
        sa.Column("error", _long_text(), nullable=True),
        sa.Column("traceback", _long_text(), nullable=True),
        sa.Column("progress_value", sa.Float(53), nullable=True),
        sa.Column("progress_start", sa.Float(53), nullable=True),
        sa.Column("progress_target", sa.Float(53), nullable=True),
        sa.Column("progress_unit", sa.String(100), nullable=True),
        sa.PrimaryKeyConstraint("task_id", "celery_id", "retries", "nesting", name="pk_taskstate_execution"),
        **_OURS,
    )
    op.create_index("ix_taskstate_execution_celery_id", "taskstate_execution", ["celery_id"])
    is_open = sa.column("closed_at").is_(None)
    op.create_index(
        "ix_taskstate_execution_open",
        "taskstate_execution",
        ["task_id", "closed_at"],
        postgresql_where=is_open,
        sqlite_where=is_open,
    )
    op.create_index(
        "ix_taskstate_execution_waiting",
        "taskstate_execution",
        ["closed_at", "published_at"],
        postgresql_where=is_open,
        sqlite_where=is_open,
    )


def _create_upkeep() -> None:
    op.create_table(
        "taskstate_upkeep",
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("owner", sa.String(32), nullable=False),
        sa.Column("until", _our_time(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_taskstate_upkeep"),
        **_OURS,
    )


def _serial() -> sa.Column[int]:
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return sa.Column("id", number, autoincrement=True, nullable=False)


def _create_log() -> None:
    op.create_table(
        "taskstate_log",
        _serial(),
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("text", _long_text(), nullable=False),
        sa.Column("glued", sa.Boolean(), nullable=False),
        sa.Column("created_at", _our_time(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_taskstate_log"),
        **_OURS,
    )
    op.create_index("ix_taskstate_log_task_id", "taskstate_log", ["task_id"])


def _create_change() -> None:
    op.create_table(
        "taskstate_change",
        _serial(),
        sa.Column("subscription_id", sa.Integer(), nullable=False),
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("event", sa.String(16), nullable=False),
        sa.Column("changed_at", _our_time(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_taskstate_change"),
        **_OURS,
    )
    op.create_index("ix_taskstate_change_subscription_id", "taskstate_change", ["subscription_id"])
    op.create_index("ix_taskstate_change_task_id", "taskstate_change", ["task_id"])


def _create_delivery() -> None:
    op.create_table(
        "taskstate_delivery",
        _serial(),
        sa.Column("subscription_id", sa.Integer(), nullable=False),
        sa.Column("event", sa.String(16), nullable=False),
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("changed_at", _our_time(), nullable=True),
        sa.Column("message_id", sa.String(64), nullable=True),
        sa.Column("message_at", _our_time(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("not_before", _our_time(), nullable=True),
        sa.Column("due_at", _our_time(), nullable=True),
        sa.Column("lease", sa.String(32), nullable=True),
        sa.Column("leased_until", _our_time(), nullable=True),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("called_at", _our_time(), nullable=True),
        sa.Column("answered_at", _our_time(), nullable=True),
        sa.Column("answer", sa.String(255), nullable=True),
        sa.Column("dead_at", _our_time(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_taskstate_delivery"),
        **_OURS,
    )
    table = "taskstate_delivery"
    op.create_index("uq_taskstate_delivery_subscription_id", table, ["subscription_id", "event"], unique=True)
    op.create_index("ix_taskstate_delivery_task_id", table, ["task_id"])
    for name in ("due_at", "leased_until"):
        there = sa.column(name).is_not(None)
        op.create_index(f"ix_{table}_{name}", table, [name], postgresql_where=there, sqlite_where=there)


def _create_host() -> None:
    op.create_table(
        "taskstate_host",
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("closed_until", _our_time(), nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_taskstate_host"),
        **_OURS,
    )


def _create_message() -> None:
    op.create_table(
        "taskstate_message",
        sa.Column("task_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("celery_id", sa.String(155), nullable=False),
        sa.Column("retries", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("nesting", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("exchange", sa.String(255), nullable=False),
        sa.Column("routing_key", sa.String(255), nullable=False),
        sa.Column("content_type", sa.String(255), nullable=False),
        sa.Column("content_encoding", sa.String(32), nullable=False),
        sa.Column("body", _long_text(), nullable=False),
        sa.Column("headers", _long_text(), nullable=False),
        sa.Column("properties", _long_text(), nullable=False),
        sa.Column("resends", sa.Integer(), nullable=False),
        sa.Column("created_at", _our_time(), nullable=False),
        sa.PrimaryKeyConstraint("task_id", "celery_id", "retries", "nesting", name="pk_taskstate_message"),
        **_OURS,
    )
