"""Run by Alembic for each command. The connection, its transaction and its lock are those of `migrations.upgrade`."""

from __future__ import annotations

from alembic import context

from qhana_taskstate.database.tables.runner import task_table

given = context.config.attributes
if "connection" not in given:
    raise RuntimeError("these migrations run through 'celery -A worker taskstate upgrade'")
context.configure(
    connection=given["connection"], target_metadata=task_table.metadata, version_table=given["version_table"]
)
context.run_migrations()
