"""A table for how the progress of tasks went over time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    moment = sa.TIMESTAMP(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
    op.create_table(
        "taskstate_progress",
        sa.Column("task_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", moment, nullable=False),
        sa.Column("share", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("task_id", "at", name="pk_taskstate_progress"),
        mysql_charset="utf8mb4",
        mariadb_charset="utf8mb4",
    )
