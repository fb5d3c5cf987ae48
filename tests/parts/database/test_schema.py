"""The schema: made by migrations, anywhere, by several at once, without touching what is there."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from qhana_taskstate.database import migrations, schema
from qhana_taskstate.database.engine import Database
from qhana_taskstate.errors import DatabaseUnavailableError, SchemaError
from qhana_taskstate.models.base import Base
from tests.parts.database import runner_database as runner

_PARTIAL, _WHOLE = "ix_taskstate_execution_open_id", "ix_taskstate_execution_open"
#: Of the two indexes for open executions the one that a kind of database does not have (Alembic knows no `ddl_if`).
_ELSEWHERE = {"postgresql": _WHOLE, "sqlite": _WHOLE, "mysql": _PARTIAL, "mariadb": _PARTIAL}


def differences(connection: Connection) -> list[Any]:
    """What Alembic would change to make a database fit the classes."""

    def ours(name: str | None, kind: str, parents: Any) -> bool:
        return kind != "table" or name in Base.metadata.tables

    def of_this_database(thing: Any, name: str | None, kind: str, reflected: bool, found: Any) -> bool:
        return kind != "index" or reflected or name != _ELSEWHERE[connection.dialect.name]

    def same_type(context: object, found: Any, declared: Any, reflected: Any, wanted: Any) -> bool | None:
        # MariaDB shows what stands behind a name: LONGTEXT behind JSON, DOUBLE behind FLOAT(53).
        match type(reflected).__name__:
            case "LONGTEXT":
                return False if declared.name == "data" else None
            case "DOUBLE":
                return False if getattr(declared.type, "precision", None) == 53 else None
        return None

    context = MigrationContext.configure(
        connection,
        opts={
            "include_name": ours,
            "include_object": of_this_database,
            "compare_type": same_type,
            "target_metadata": Base.metadata,
        },
    )
    return list(compare_metadata(context, Base.metadata))


def set_revision(database: Database, revision: str) -> None:
    with database.engine.begin() as connection:
        connection.execute(text(f"UPDATE {schema.VERSION_TABLE} SET version_num = :new"), {"new": revision})  # noqa: S608


def test_an_empty_database_gets_all_tables(bare_database: Database) -> None:
    assert schema.current_revision(bare_database) is None

    schema.upgrade(bare_database)

    tables = set(inspect(bare_database.engine).get_table_names())
    assert tables == {*Base.metadata.tables, schema.VERSION_TABLE}
    assert schema.current_revision(bare_database) is not None
    schema.check(bare_database)


def test_the_migrations_make_what_the_classes_say(database: Database) -> None:
    with database.reading() as connection:
        assert differences(connection) == []


def test_a_second_upgrade_changes_nothing(database: Database) -> None:
    before = schema.current_revision(database)

    schema.upgrade(database)

    assert schema.current_revision(database) == before


def test_constraints_are_named_as_those_of_the_runner(database: Database) -> None:
    with database.reading() as connection:
        made = _definitions(connection)

    for table in ("TaskFile", "TaskLink", "TaskUpdateSubscription"):
        assert f"fk_{table}_task_id_ProcessingTask" in made
        assert f"ix_{table}_task_id" in made
    assert {"fk_Step_id_ProcessingTask", "ix_TaskFile_file_name"} <= made
    if database.dialect == "postgresql":
        assert {"pk_ProcessingTask", "pk_Step", "pk_TaskFile"} <= made


def _definitions(connection: Connection) -> set[str]:
    """The names of all constraints and indexes, as the database itself has them."""
    statements = {
        # SQLite keeps the text of the statements alone.
        "sqlite": "SELECT sql FROM sqlite_master",
        "postgresql": "SELECT conname FROM pg_constraint UNION SELECT indexname FROM pg_indexes",
        "mysql": (
            "SELECT constraint_name FROM information_schema.table_constraints WHERE table_schema = database() "
            "UNION SELECT index_name FROM information_schema.statistics WHERE table_schema = database()"
        ),
    }
    found = connection.exec_driver_sql(statements[connection.dialect.name]).scalars()
    return {word for text in found if text for word in re.findall(r"\w+", text)}


def test_a_database_of_a_runner_keeps_its_rows_and_tables(bare_database: Database) -> None:
    with bare_database.engine.begin() as connection:
        runner.fill(connection)
    with bare_database.reading() as connection:
        rows = runner.dump(connection)
        columns = _columns(connection)

    schema.upgrade(bare_database)
    schema.upgrade(bare_database)

    with bare_database.reading() as connection:
        assert runner.dump(connection) == rows
        assert _columns(connection) == columns
        assert differences(connection) == []
    schema.check(bare_database)


def test_table_of_a_runner_that_lacks_a_column_is_named_and_nothing_is_made(bare_database: Database) -> None:
    with bare_database.engine.begin() as connection:
        runner.fill(connection)
        quoted = connection.dialect.identifier_preparer.quote("ProcessingTask")
        connection.execute(text(f"ALTER TABLE {quoted} DROP COLUMN progress_unit"))

    with pytest.raises(
        SchemaError, match=r"ProcessingTask .* lacks progress_unit; run the migrations of the application"
    ):
        schema.upgrade(bare_database)

    if bare_database.dialect != "mysql" and bare_database.dialect != "mariadb":
        # MariaDB commits each statement that makes a table.
        assert "taskstate_job" not in inspect(bare_database.engine).get_table_names()


def _columns(connection: Connection) -> dict[str, list[Any]]:
    inspector = inspect(connection)
    return {
        table.name: [repr(column) for column in inspector.get_columns(table.name)]
        for table in runner.runner_metadata.sorted_tables
    }


def test_two_upgrades_at_once_both_succeed(
    bare_database: Database, taskstate_database_url: str, at_once: Callable[..., list[Any]]
) -> None:
    databases = [Database(taskstate_database_url) for _ in range(3)]

    results = at_once(*(lambda database=database: schema.upgrade(database) for database in databases))

    for database in databases:
        database.dispose()
    assert results == [None] * 3
    with bare_database.reading() as connection:
        assert differences(connection) == []


@pytest.mark.servers
def test_two_processes_can_upgrade_at_once(bare_database: Database, taskstate_database_url: str) -> None:
    program = (
        "import sys; from qhana_taskstate.database import schema; "
        "from qhana_taskstate.database.engine import Database; "
        "schema.upgrade(Database(sys.argv[1]))"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program, taskstate_database_url], cwd=Path(__file__).parents[3])
        for _ in range(2)
    ]
    codes = [process.wait(timeout=60) for process in processes]

    assert codes == [0, 0]
    schema.check(bare_database)


@pytest.mark.databases("sqlite", "postgresql")
def test_an_upgrade_that_fails_leaves_nothing_behind(bare_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with bare_database.engine.begin() as connection:
        # In the way of the last table that the first migration makes.
        connection.execute(text("CREATE TABLE taskstate_log (id INTEGER)"))

    with pytest.raises(Exception, match="taskstate_log"):
        schema.upgrade(bare_database)

    assert inspect(bare_database.engine).get_table_names() == ["taskstate_log"]
    assert schema.current_revision(bare_database) is None


def test_check_says_what_to_run_where_there_are_no_tables(bare_database: Database) -> None:
    with pytest.raises(SchemaError, match=r"tables .* are missing .* celery -A worker taskstate upgrade"):
        schema.check(bare_database)


def test_check_takes_the_version_before_and_a_newer_one(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "known_revisions", lambda: ("old", "before", "newest"))

    for revision in ("before", "newest", "from the future"):
        set_revision(database, revision)
        schema.check(database)


def test_check_refuses_what_is_older_than_the_version_before(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "known_revisions", lambda: ("old", "before", "newest"))
    set_revision(database, "old")

    with pytest.raises(SchemaError, match=r"has the version 'old', but .* needs 'before' or newer; run: celery"):
        schema.check(database)


def test_versions_that_are_known_are_those_of_the_migrations() -> None:
    script = ScriptDirectory(str(Path(migrations.__path__[0])))

    assert schema.known_revisions() == tuple(found.revision for found in script.walk_revisions())[::-1]


def test_upgrade_refuses_a_version_that_is_newer(database: Database) -> None:
    set_revision(database, "9999")

    with pytest.raises(SchemaError, match="'9999', which is newer than this qhana_taskstate"):
        schema.upgrade(database)


@pytest.mark.parametrize("call", [schema.upgrade, schema.check, schema.current_revision])
@pytest.mark.parametrize("url", ["postgresql+psycopg://nobody@127.0.0.1:1/none", "sqlite:////proc/none/taskstate.db"])
def test_a_database_that_cannot_be_reached_is_a_clear_error(call: Callable[[Database], Any], url: str) -> None:
    with pytest.raises(DatabaseUnavailableError, match="taskstate_database_url"):
        call(Database(url))
