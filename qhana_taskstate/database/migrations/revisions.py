"""Which version a database has, and which ones this package knows."""

from __future__ import annotations

import pkgutil
from functools import cache
from typing import Final

from sqlalchemy import Connection, column, inspect, select, table

from . import versions

#: Where the version is kept; the plugin runner's `alembic_version` is its own.
VERSION_TABLE: Final = "taskstate_alembic_version"

#: What a module of `versions` is named before and after its revision: `v0001_first_tables`.
_MARK, _END = "v", "_"


@cache
def known_revisions() -> tuple[str, ...]:
    """Return all versions that this package knows, oldest first."""
    names = sorted(module.name for module in pkgutil.iter_modules(versions.__path__))
    return tuple(name.partition(_END)[0].removeprefix(_MARK) for name in names)


def revision_of(connection: Connection) -> str | None:
    """Return the version of a database, None if it was never migrated."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    # The column is Alembic's (1.14 to 1.20).
    revision: str | None = connection.execute(select(column("version_num")).select_from(table(VERSION_TABLE))).scalar()
    return revision
