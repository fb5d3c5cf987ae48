"""The tables of tasks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "r0001"
down_revision = None
branch_labels = None
depends_on = None


def _of_task(table: str, column: str = "task_id") -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], ["ProcessingTask.id"], name=f"fk_{table}_{column}_ProcessingTask")


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "ProcessingTask",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("task_name", sa.String(500)),
        sa.Column("started_at", sa.TIMESTAMP(timezone=True)),
        sa.Column("finished_at", sa.TIMESTAMP(timezone=True)),
        sa.Column("parameters", sa.Text()),
        sa.Column("data", sa.JSON()),
        sa.Column("multi_step", sa.Boolean()),
        sa.Column("current_step", sa.Integer()),
        sa.Column("progress_value", sa.Float()),
        sa.Column("progress_start", sa.Float()),
        sa.Column("progress_target", sa.Float()),
        sa.Column("progress_unit", sa.String(100)),
        sa.Column("task_status", sa.String(100)),
        sa.Column("task_log", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ProcessingTask"),
    )
    op.create_table(
        "Step",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("step_id", sa.String(500)),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("href", sa.String(500)),
        sa.Column("ui_href", sa.String(500)),
        sa.Column("cleared", sa.Boolean()),
        _of_task("Step", "id"),
        sa.PrimaryKeyConstraint("id", "number", name="pk_Step"),
    )
    op.create_table(
        "TaskFile",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("security_tag", sa.String(64), nullable=False),
        sa.Column("storage_provider", sa.String(64), nullable=False),
        sa.Column("file_name", sa.String(500), nullable=False),
        sa.Column("file_storage_data", sa.Text(), nullable=False),
        sa.Column("file_type", sa.String(255)),
        sa.Column("mimetype", sa.String(255)),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True)),
        sa.Column("task_id", sa.Integer()),
        _of_task("TaskFile"),
        sa.PrimaryKeyConstraint("id", name="pk_TaskFile"),
    )
    op.create_index("ix_TaskFile_file_name", "TaskFile", ["file_name"])


def downgrade() -> None:
    """Drop them."""
    for table in ("TaskFile", "Step", "ProcessingTask"):
        op.drop_table(table)
