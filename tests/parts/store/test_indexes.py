"""What every observer asks at each of its turns reads what runs, not what waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, event, insert, text

from qhana_taskstate.clock import now
from qhana_taskstate.database.engine import Database
from qhana_taskstate.database.tables.executions import execution_table
from qhana_taskstate.facts import ExecutionKey
from qhana_taskstate.store.executions import begin, heartbeats
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
        connection.execute(text("ANALYZE"))

    with database.reading() as connection:
        plan = _plan(connection, look)

    assert "ix_taskstate_execution_host" in plan, plan
