"""The URL of the database that a Django project uses, for `taskstate_database_url`. Imports nothing of Django."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import URL

from ..errors import SettingsError

#: Django's engines, by the last part of their names, and SQLAlchemy's drivers for the same databases.
_DRIVERS: Final = {
    "sqlite3": "sqlite",
    "spatialite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "postgresql_psycopg2": "postgresql+psycopg",
    "postgis": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
}
#: Options of a connection that mean the same to Django's driver and to ours; all others are Django's alone.
_OPTIONS: Final = {
    "postgresql+psycopg": frozenset(
        ("sslmode", "sslrootcert", "sslcert", "sslkey", "service", "passfile", "options", "target_session_attrs")
    ),
    "mysql+pymysql": frozenset(("unix_socket", "charset", "read_default_file", "ssl_ca", "ssl_cert", "ssl_key")),
    "sqlite": frozenset(()),
}


def database_url(databases: Mapping[str, Mapping[str, Any]], alias: str = "default") -> str:
    """Return the SQLAlchemy URL of one of Django's databases, for `CELERY_TASKSTATE_DATABASE_URL`.

    Our tables are then beside those of Django's models, on connections of our own. PostgreSQL needs the extra
    `postgresql`, MySQL and MariaDB the extra `mysql`.

    Args:
        databases: Django's setting `DATABASES`.
        alias: Which of them.

    Raises:
        SettingsError: If there is none of that name, if its engine is none that is supported, or if it is in memory,
            where no worker would find it. The password is not in the message.
    """
    if alias not in databases:
        raise SettingsError(f"DATABASES has no {alias!r}; it has {', '.join(map(repr, databases)) or 'none'}")
    found = databases[alias]
    engine = str(found.get("ENGINE", ""))
    driver = _DRIVERS.get(engine.rpartition(".")[2])
    if driver is None:
        raise SettingsError(
            f"DATABASES[{alias!r}] has the engine {engine!r}; task states can be in SQLite, PostgreSQL, MySQL and "
            "MariaDB: set taskstate_database_url by itself"
        )
    name = str(found.get("NAME") or "")
    if driver == "sqlite":
        if not name or name == ":memory:" or name.startswith("file:"):
            raise SettingsError(
                f"DATABASES[{alias!r}] is {name or ':memory:'!r}, which no other process finds; name a file"
            )
        return URL.create(driver, database=name).render_as_string(hide_password=False)
    return _of_server(driver, name, found).render_as_string(hide_password=False)


def _of_server(driver: str, name: str, found: Mapping[str, Any]) -> URL:
    query = {
        key: str(value) for key, value in (found.get("OPTIONS") or {}).items() if key in _OPTIONS[driver] and value
    }
    host: str | None = str(found.get("HOST") or "") or None
    if host is not None and host.startswith("/"):
        # The folder of a socket for PostgreSQL, the socket itself for MySQL (Django 5.2).
        query["host" if driver.startswith("postgresql") else "unix_socket"] = host
        host = None
    elif host is None and driver.startswith("mysql"):
        host = "localhost"
    port = str(found.get("PORT") or "")
    return URL.create(
        driver,
        username=str(found.get("USER") or "") or None,
        password=str(found.get("PASSWORD") or "") or None,
        host=host,
        port=int(port) if port else None,
        database=name or None,
        query=query,
    )
