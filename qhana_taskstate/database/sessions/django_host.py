"""Asks Django, where it is the host, for its open transactions and whether its tests run.

Nothing of Django is imported, for those who do not have it.
"""

from __future__ import annotations

import sys
from os.path import realpath
from typing import Any


def open_transaction(using: str | None = None) -> Any:
    """Return the connection of this thread that is in a transaction, None if there is none.

    Args:
        using: Alias of one database. None looks at the default one first, then at the others that are in use.
    """
    if using is not None:
        connection = sys.modules["django.db"].connections[using] if "django.db" in sys.modules else None
        return connection if connection is not None and _is_in_transaction(connection) else None
    return next((connection for connection in _connections() if _is_in_transaction(connection)), None)


def open_transaction_on_file(path: str) -> Any:
    """Return the connection of this thread that is in a transaction on an SQLite file, None if there is none.

    Args:
        path: The absolute path of the file, links resolved.
    """
    from_here = (connection for connection in _connections() if _is_in_transaction(connection))
    return next((found for found in from_here if found.vendor == "sqlite" and _path(found) == path), None)


def runs_tests() -> bool:
    """Tell whether Django's test environment is set up (`manage.py test`, pytest-django)."""
    utils = sys.modules.get("django.test.utils")
    return utils is not None and hasattr(utils._TestState, "saved_data")


def _connections() -> list[Any]:
    database = sys.modules.get("django.db")
    settings = getattr(sys.modules.get("django.conf"), "settings", None)
    if database is None or settings is None or not settings.configured:
        return []
    found = list(database.connections.all(initialized_only=True))
    return sorted(found, key=lambda connection: connection.alias != "default")


def _is_in_transaction(connection: Any) -> bool:
    # Without autocommit Django's own `on_commit` says that it cannot know when.
    return bool(connection.in_atomic_block or (connection.connection is not None and not connection.autocommit))


def _path(connection: Any) -> str:
    return realpath(str(connection.settings_dict["NAME"]))
