"""Run by Alembic for each command. The connection, its transaction and its lock are those of `schema`."""

from __future__ import annotations

from alembic import context

from qhana_taskstate.models import Base
from qhana_taskstate.schema import VERSION_TABLE

connection = context.config.attributes.get("connection")
if connection is None:
    raise RuntimeError("these migrations run through 'celery -A worker taskstate upgrade'")
context.configure(connection=connection, target_metadata=Base.metadata, version_table=VERSION_TABLE)
context.run_migrations()
