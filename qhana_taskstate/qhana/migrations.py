"""The host's own migrations, where it has some: with Flask-Migrate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import Flask, current_app, has_app_context
from sqlalchemy import Connection, inspect

from ..database.engine import Database
from ..database.migrations.whole_metadata import metadata as our_metadata
from ..errors import SchemaError
from .classes import OURS

#: The name under which Flask-Migrate keeps its configuration (Flask-Migrate 4).
_EXTENSION: Final = "migrate"

#: The index that the runner has itself.
_HOSTS_INDEX: Final = "ix_TaskFile_file_name"

#: What of ours the host's migrations have nothing to do with.
_OUR_TABLES: Final = frozenset(name for name in our_metadata.tables if name not in OURS)
_OUR_INDEXES: Final = frozenset(
    str(index.name) for name in OURS for index in our_metadata.tables[name].indexes if index.name != _HOSTS_INDEX
)

Include = Callable[..., bool]


def leave_out_ours(app: Flask, version_table: str) -> None:
    """Let the host's `flask db check` and `flask db migrate` leave our tables alone. Twice is once.

    Args:
        app: The Flask app, with Flask-Migrate or without.
        version_table: Where our version is kept.
    """
    extension = app.extensions.get(_EXTENSION)
    if extension is None:
        return
    arguments: dict[str, Any] = extension.configure_args
    before = arguments.get("include_object")
    if not isinstance(before, _Include):
        arguments["include_object"] = _Include(before, version_table)


class _Include:
    """Alembic's `include_object`.

    Args:
        before: The host's own.
        version_table: Where our version is kept.
    """

    def __init__(self, before: Include | None, version_table: str) -> None:
        self._before = before
        self._tables = {*_OUR_TABLES, version_table}

    def __call__(self, found: Any, name: str | None, kind: str, reflected: bool, compared: Any) -> bool:
        table = name if kind == "table" else getattr(getattr(found, "table", None), "name", None)
        if table in self._tables or (kind == "index" and name in _OUR_INDEXES):
            return False
        if kind == "column" and table in OURS and compared is not None and found.nullable and not compared.nullable:
            # Made by `create_all` of the runner's models: what is NULL reads as its default, so both are right.
            return False
        return self._before is None or bool(self._before(found, name, kind, reflected, compared))


def stamp(connection: Connection, revision: str) -> None:
    """Note a version of the host's migrations in its database; without an app or migrations nothing is done.

    Args:
        connection: In whose transaction to write.
        revision: `heads` or `base`.
    """
    scripts = _scripts()
    if scripts is not None:
        table = current_app.extensions[_EXTENSION].configure_args.get("version_table", "alembic_version")
        context = MigrationContext.configure(connection, opts={"version_table": table})
        if revision == "base" and not context.get_current_heads():
            return
        context.stamp(scripts, revision)


def upgrade_empty(app: Flask, database: Database) -> None:
    """Run the host's migrations on a database that does not have the runner's tables: they make them themselves.

    Raises:
        SchemaError: If the host has migrations and they are not found from here.
    """
    if _EXTENSION not in app.extensions or database.read(lambda connection: inspect(connection).has_table("Step")):
        return
    with app.app_context():
        if _scripts() is None:
            raise SchemaError(
                f"the tables of the host are missing in {database.name}, and its migrations are not found in "
                f"{_directory().absolute()}; run this where 'flask db upgrade' is run"
            )
        command.upgrade(app.extensions[_EXTENSION].migrate.get_config(), "head")


def _directory() -> Path:
    return Path(current_app.extensions[_EXTENSION].directory)


def _scripts() -> ScriptDirectory | None:
    if not has_app_context() or _EXTENSION not in current_app.extensions:
        return None
    if not (_directory() / "env.py").exists():
        return None
    return ScriptDirectory.from_config(current_app.extensions[_EXTENSION].migrate.get_config())
