"""Links, subscriptions, notes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "r0002"
down_revision = "r0001"
branch_labels = None
depends_on = None


def _made(table: str, *columns: sa.Column[str]) -> None:
    op.create_table(
        table,
        sa.Column("id", sa.Integer(), nullable=False),
        *columns,
        sa.Column("task_id", sa.Integer()),
        sa.ForeignKeyConstraint(["task_id"], ["ProcessingTask.id"], name=f"fk_{table}_task_id_ProcessingTask"),
        sa.PrimaryKeyConstraint("id", name=f"pk_{table}"),
    )


def upgrade() -> None:
    """Make them."""
    _made(
        "TaskLink",
        sa.Column("type", sa.String(64), nullable=False),
        sa.Column("href", sa.String(500), nullable=False),
    )
    _made(
        "TaskUpdateSubscription",
        sa.Column("webhook_href", sa.String(500), nullable=False),
        sa.Column("task_href", sa.String(500), nullable=False),
        sa.Column("event_type", sa.String(64)),
    )
    _made("Note", sa.Column("text", sa.String(100), nullable=False))


def downgrade() -> None:
    """Drop them."""
    for table in ("Note", "TaskUpdateSubscription", "TaskLink"):
        op.drop_table(table)
