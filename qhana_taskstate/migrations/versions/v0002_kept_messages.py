"""Keep the messages of tasks that are sent again when the broker lost them; find what waits without a scan."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

#: Arguments hold any text. A server's own default may be latin1.
_OURS: dict[str, Any] = {"mysql_charset": "utf8mb4", "mariadb_charset": "utf8mb4"}


def upgrade() -> None:
    """Bring a database of the version before to this one."""
    long_text = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
    moment = sa.TIMESTAMP(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
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
        sa.Column("body", long_text, nullable=False),
        sa.Column("headers", long_text, nullable=False),
        sa.Column("properties", long_text, nullable=False),
        sa.Column("resends", sa.Integer(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("task_id", "celery_id", "retries", "nesting", name="pk_taskstate_message"),
        **_OURS,
    )
    is_open = sa.column("closed_at").is_(None)
    op.create_index(
        "ix_taskstate_execution_waiting",
        "taskstate_execution",
        ["closed_at", "published_at"],
        postgresql_where=is_open,
        sqlite_where=is_open,
    )
