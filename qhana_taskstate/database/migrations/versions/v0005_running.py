"""An index for the look for what runs on one machine, however much waits in queues."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the index."""
    runs = sa.and_(sa.column("closed_at").is_(None), sa.column("host").is_not(None))
    op.create_index(
        "ix_taskstate_execution_host",
        "taskstate_execution",
        ["closed_at", "host", "pid"],
        postgresql_where=runs,
        sqlite_where=runs,
    )
