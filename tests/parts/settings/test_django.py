"""Django's `DATABASES` as a URL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from qhana_taskstate import SettingsError
from qhana_taskstate.settings.django import database_url

SERVER = {"NAME": "shop", "USER": "me", "PASSWORD": "p@ss/w:rd", "HOST": "db.example", "PORT": "6000"}


def _database(engine: str, **found: Any) -> dict[str, dict[str, Any]]:
    return {"default": {"ENGINE": f"django.db.backends.{engine}", **found}}


@pytest.mark.parametrize("name", ["/srv/shop.sqlite3", Path("/srv/shop.sqlite3")])
def test_a_file_of_sqlite_is_named(name: object) -> None:
    assert database_url(_database("sqlite3", NAME=name)) == "sqlite:////srv/shop.sqlite3"


@pytest.mark.parametrize(("engine", "driver"), [("postgresql", "postgresql+psycopg"), ("mysql", "mysql+pymysql")])
def test_a_server_keeps_all_that_leads_to_it(engine: str, driver: str) -> None:
    url = make_url(database_url(_database(engine, **SERVER)))
    assert (url.drivername, url.username, url.password, url.host, url.port, url.database) == (
        driver,
        "me",
        "p@ss/w:rd",
        "db.example",
        6000,
        "shop",
    )


def test_options_of_the_connection_are_kept_and_those_of_django_are_not() -> None:
    options = {"sslmode": "require", "pool": True, "isolation_level": 4}
    assert dict(make_url(database_url(_database("postgresql", **SERVER, OPTIONS=options))).query) == {
        "sslmode": "require"
    }


@pytest.mark.parametrize(
    ("engine", "key", "socket"),
    [("postgresql", "host", "/run/postgresql"), ("mysql", "unix_socket", "/run/mysqld/mysqld.sock")],
)
def test_a_socket_is_kept(engine: str, key: str, socket: str) -> None:
    url = make_url(database_url(_database(engine, NAME="shop", HOST=socket, PORT="")))
    assert (url.host, url.query[key], url.port) == (None, socket, None)


def test_another_alias_and_another_home_of_the_engine() -> None:
    databases = {"default": {}, "states": {"ENGINE": "django.contrib.gis.db.backends.postgis", "NAME": "s", "PORT": 1}}
    assert database_url(databases, "states") == "postgresql+psycopg://:1/s"


@pytest.mark.parametrize(
    ("databases", "told"),
    [
        ({}, "has no 'default'"),
        (_database("oracle", NAME="x", PASSWORD="secret"), "'django.db.backends.oracle'"),
        (_database("sqlite3", NAME=":memory:"), "no other process"),
        (_database("sqlite3", NAME="file:x?mode=memory"), "no other process"),
        (_database("sqlite3"), "no other process"),
    ],
)
def test_what_cannot_be_used_is_named(databases: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=told) as error:
        database_url(databases)
    assert "secret" not in str(error.value)
