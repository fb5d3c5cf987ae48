"""Runs the migrations of the runner, as Flask-Migrate's template does."""

from __future__ import annotations

from alembic import context
from flask import current_app

_extension = current_app.extensions["migrate"]

with _extension.db.engine.connect() as connection:
    context.configure(connection=connection, target_metadata=_extension.db.metadata, **_extension.configure_args)
    with context.begin_transaction():
        context.run_migrations()
