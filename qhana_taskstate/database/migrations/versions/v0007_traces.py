"""The trace of an execution; a mark for a progress that only looks like that of a canvas."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column, which no row has to be written for, and make the table."""
    op.add_column("taskstate_execution", sa.Column("trace_id", sa.String(32), nullable=True))
    moment = sa.TIMESTAMP(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
    op.create_table(
        "taskstate_own_progress",
        sa.Column("task_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("task_id", name="pk_taskstate_own_progress"),
        mysql_charset="utf8mb4",
        mariadb_charset="utf8mb4",
    )
