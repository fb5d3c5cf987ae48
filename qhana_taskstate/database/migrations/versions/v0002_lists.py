"""Indexes for lists of tasks, and for the newest entry of a log.

The tables of the plugin runner keep their columns and constraints. Where a database has partial indexes, a task that
ends well costs nothing more.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the indexes."""
    table = "ProcessingTask"
    open_ = sa.column("finished_at").is_(None)
    failed = sa.column("task_status").in_([sa.literal_column("'ERROR'"), sa.literal_column("'FAILURE'")])
    op.create_index("ix_ProcessingTask_open", table, ["finished_at", "id"], postgresql_where=open_, sqlite_where=open_)
    op.create_index(
        "ix_ProcessingTask_failed", table, ["task_status", "id"], postgresql_where=failed, sqlite_where=failed
    )
    op.create_index("ix_taskstate_log_newest", "taskstate_log", ["task_id", "id"])
    op.drop_index("ix_taskstate_log_task_id", "taskstate_log")
