"""The Alembic migrations of the tables; run by `qhana_taskstate.schema`."""
