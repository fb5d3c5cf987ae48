"""What is sent of every execution, and what every observer asks at each of its turns, reads no whole table."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, event, insert

from qhana_taskstate.clock import now
from qhana_taskstate.database.engine import Database
from qhana_taskstate.database.scripts.prepared import prepare
from qhana_taskstate.database.tables.base import metadata
from qhana_taskstate.database.tables.executions import execution_table
from qhana_taskstate.facts import ExecutionKey, Failure, Progress, TaskRef
from qhana_taskstate.states import ExecutionState
from qhana_taskstate.store.closing import close, holds
from qhana_taskstate.store.closing.close import Closing
from qhana_taskstate.store.executions import begin, heartbeats
from qhana_taskstate.store.script import Script
from qhana_taskstate.store.task import jobs

_WAITING = 3000


def _fill(connection: Connection) -> None:
    """Add one execution that runs, and many that wait in a queue."""
    ref = jobs.take_up(connection, jobs.add_task(connection, "runs")).ref
    runner = begin.Runner(worker="w", host="here", pid=7, pid_started=1.0)
    begin.begin(connection, ref, ExecutionKey("runs"), name="runs", runner=runner)
    queued = [
        {"task_id": ref.task_id, "celery_id": str(number), "retries": 0, "nesting": 0, "name": "waits"}
        | {"state": "QUEUED", "published_at": now()}
        for number in range(_WAITING)
    ]
    connection.execute(insert(execution_table), queued)


def _analyze(connection: Connection) -> None:
    # Of our own tables only: those that all databases of a server share may be locked by another test.
    for table in metadata.sorted_tables:
        connection.exec_driver_sql(f"ANALYZE {connection.dialect.identifier_preparer.format_table(table)}")


def _plan(connection: Connection, look: Callable[[Connection], list[Any]]) -> str:
    """Return how the database carries out the statement of a look."""
    seen: list[tuple[str, Any]] = []

    def note(*told: Any) -> None:
        seen.append((told[2], told[3]))

    event.listen(connection, "before_cursor_execute", note)
    found = look(connection)
    event.remove(connection, "before_cursor_execute", note)
    assert [lease.key.celery_id for lease in found] == ["runs"]
    ((statement, parameters),) = seen
    words = "EXPLAIN QUERY PLAN " if connection.dialect.name == "sqlite" else "EXPLAIN "
    return "\n".join(str(tuple(row)) for row in connection.exec_driver_sql(words + statement, parameters))


@pytest.mark.parametrize(
    "look",
    [
        lambda connection: heartbeats.running(connection),
        lambda connection: heartbeats.running(connection, execution_table.c.host == "here"),
        lambda connection: heartbeats.running_in(connection, "here", 7, 1.0, now()),
    ],
    ids=["all", "of a machine", "of a process"],
)
def test_look_for_what_runs_uses_the_index_without_what_waits(
    database: Database, look: Callable[[Connection], list[Any]]
) -> None:
    with database.transaction() as connection:
        _fill(connection)
        _analyze(connection)

    with database.reading() as connection:
        plan = _plan(connection, look)

    assert "ix_taskstate_execution_host" in plan, plan


_KEY = ExecutionKey("7")
_QUIET = Closing(key=_KEY, name="waits", state=ExecutionState.SUCCESS)
_HOT: dict[str, Callable[[TaskRef], Script[Any]]] = {
    "a beginning": lambda ref: begin.begin_script(
        ref, _KEY, name="waits", runner=begin.Runner(worker="w", host="here", pid=7, pid_started=1.0)
    ),
    "an end that brings nothing": lambda ref: close.close_script(ref, _QUIET),
    "an end that brings all": lambda ref: close.close_script(
        ref, replace(_QUIET, lines=["a", "b"], progress=Progress(1.0))
    ),
    "a failure": lambda ref: close.close_script(
        ref, replace(_QUIET, state=ExecutionState.FAILURE, failure=Failure(type="E", message="m"))
    ),
    "the end of a submission": lambda ref: holds.release_script(ref, "hold", [], deadline_seconds=1),
}


def _plans(connection: Connection, script: Script[Any]) -> Iterator[tuple[str, str]]:
    """Return how the database carries out each statement of a script, with its text."""
    words = "EXPLAIN QUERY PLAN " if connection.dialect.name == "sqlite" else "EXPLAIN "
    for statement in script.statements:
        prepared = prepare(statement.sql, connection.dialect)
        values = statement.values if isinstance(statement.values, Mapping) else statement.values[0]
        rows = connection.exec_driver_sql(words + prepared.text, prepared.parameters(values))
        yield prepared.text, "\n".join(str(tuple(row)) for row in rows)


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in _HOT.items()])
def test_statement_of_every_execution_reads_no_whole_table(
    database: Database, make: Callable[[TaskRef], Script[Any]]
) -> None:
    with database.transaction() as connection:
        _fill(connection)
        ref = jobs.take_up(connection, jobs.add_task(connection, "another")).ref
        more = [jobs.take_up(connection, jobs.add_task(connection, "more")).ref.task_id for _ in range(300)]
        queued = {"celery_id": "one", "retries": 0, "nesting": 0, "name": "waits", "state": "QUEUED"}
        connection.execute(insert(execution_table), [queued | {"task_id": task_id} for task_id in more])
        _analyze(connection)
        if connection.dialect.name == "postgresql":
            # Of tables as small as a page it reads all otherwise.
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")

        for statement, plan in _plans(connection, make(ref)):
            whole = [line for line in plan.splitlines() if "Seq Scan" in line or _SQLITE_SCAN.search(line)]
            assert not whole, f"{statement}\n{plan}"


#: SQLite says so of a result that it has made itself too.
_SQLITE_SCAN = re.compile("SCAN (?!CONSTANT ROW|free_row|some_entries|\\d|\\()")


def test_open_execution_is_found_by_its_own_index_in_a_large_canvas(database: Database) -> None:
    with database.transaction() as connection:
        _fill(connection)
        ref = jobs.take_up(connection, 1).ref
        _analyze(connection)

        _, plan = next(_plans(connection, _HOT["a beginning"](ref)))

    assert "ix_taskstate_execution_open_id" in plan or "pk_taskstate_execution" in plan or "autoindex" in plan, plan
    assert "celery_id" in plan, plan
