"""Engines and short transactions."""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from qhana_taskstate import DatabaseUnavailableError, SettingsError
from qhana_taskstate.database.engine import Database


@pytest.mark.parametrize("url", ["nonsense", "nosuchdatabase://h/d", "://"])
def test_url_that_names_no_database_is_a_settings_error(url: str) -> None:
    with pytest.raises(SettingsError, match="taskstate_database_url"):
        Database(url)


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [
        ("postgresql+psycopg://u:hidden@h/d", "psycopg", "postgresql"),
        ("mysql+pymysql://u:hidden@h/d", "pymysql", "mysql"),
        ("mariadb+pymysql://u:hidden@h/d", "pymysql", "mysql"),
    ],
)
def test_driver_that_is_missing_names_the_extra_that_brings_one(
    url: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SettingsError, match=rf"pip install 'qhana_taskstate\[{extra}\]' brings") as seen:
        _ = Database(url).engine
    assert "hidden" not in str(seen.value)


def test_database_that_cannot_be_reached_is_named_without_its_password() -> None:
    database = Database("postgresql+psycopg://user:hidden@127.0.0.1:1/none")

    with pytest.raises(DatabaseUnavailableError, match=r"user:\*\*\*@127\.0\.0\.1") as caught, database.transaction():
        pass
    assert "hidden" not in str(caught.value)
    assert "hidden" not in repr(database)


def test_in_memory_database_is_shared_by_threads() -> None:
    database = Database("sqlite://")
    with database.transaction() as connection:
        connection.execute(text("CREATE TABLE t (v INTEGER)"))
        connection.execute(text("INSERT INTO t VALUES (7)"))
    seen: list[int] = []

    def read() -> None:
        with database.reading() as connection:
            seen.append(connection.execute(text("SELECT v FROM t")).scalar_one())

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    database.dispose()

    assert seen == [7]


def test_two_in_memory_databases_are_two() -> None:
    one, other = Database("sqlite:///:memory:"), Database("sqlite:///:memory:")
    with one.transaction() as connection:
        connection.execute(text("CREATE TABLE t (v INTEGER)"))
    with other.reading() as connection:
        assert connection.execute(text("SELECT count(*) FROM sqlite_master")).scalar_one() == 0
    one.dispose()
    other.dispose()


def test_transaction_rolls_back_on_an_exception(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'd.db'}")
    with database.transaction() as connection:
        connection.execute(text("CREATE TABLE t (v INTEGER)"))
    with pytest.raises(ZeroDivisionError), database.transaction() as connection:
        connection.execute(text("INSERT INTO t VALUES (1)"))
        raise ZeroDivisionError
    with database.reading() as connection:
        assert connection.execute(text("SELECT count(*) FROM t")).scalar_one() == 0
    database.dispose()


def test_forked_child_has_connections_of_its_own(taskstate_database_url: str) -> None:
    database = Database(taskstate_database_url)
    with database.transaction() as connection:
        connection.execute(text("CREATE TABLE t (v INTEGER)"))
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            with database.transaction() as connection:
                connection.execute(text("INSERT INTO t VALUES (1)"))
            code = 0
        finally:
            os._exit(code)

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    with database.transaction() as connection:
        assert connection.execute(text("SELECT count(*) FROM t")).scalar_one() == 1
    database.dispose()


@pytest.mark.parametrize("patience", [0, 0.1])
def test_lock_that_is_not_had_in_time_is_an_error_of_sqlalchemy(tmp_path: Path, patience: float) -> None:
    database = Database(f"sqlite:///{tmp_path / 'd.sqlite'}")
    with database.transaction() as connection:
        connection.execute(text("CREATE TABLE t (v INTEGER)"))
    holder = sqlite3.connect(tmp_path / "d.sqlite", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")

    with pytest.raises(OperationalError, match="locked"), database.transaction(patience=patience):
        pass
    holder.execute("ROLLBACK")
    with database.transaction(patience=patience) as connection:
        connection.execute(text("INSERT INTO t VALUES (7)"))
    holder.close()
    database.dispose()
