"""What is asked and done often reads a few rows by an index, however many finished tasks there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from qhana_taskstate import ProcessingTask, TaskState
from qhana_taskstate.database import engine
from qhana_taskstate.reading import listing
from qhana_taskstate.reading import tasks as reading_tasks
from qhana_taskstate.reading.listing import TaskFilter
from tests.apps import jobs
from tests.apps.factory import close_state, make_app

#: Finished tasks in the tables; and how many rows a statement may look at.
TASKS, LOOKED_AT = 20_000, 2_500

_NUMBERS = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {})",
    "postgresql": "WITH n(i) AS (SELECT * FROM generate_series(1, {}))",
}
_ROWS = (
    'INSERT INTO "ProcessingTask" (id, task_name, started_at, finished_at, task_status, task_log, multi_step,'
    " current_step, parameters) {} SELECT i, 'task', '2026-01-01 00:00:00', '2026-01-01 00:01:00',"
    " CASE WHEN i % 500 = 0 THEN 'ERROR' ELSE 'SUCCESS' END, 'a line', false, 0, '' FROM n",
    "INSERT INTO taskstate_job (task_id, token, open_ended, parked, had_work, end_status, ended_at, end_copied,"
    " created_at) {} SELECT i, 'token', false, false, true, 'SUCCESS', '2026-01-01 00:01:00', true,"
    " '2026-01-01 00:00:00' FROM n",
    "INSERT INTO taskstate_execution (task_id, celery_id, retries, nesting, name, state, published_at, started_at,"
    " closed_at, host, pid, deliveries, losses) {} SELECT i, 'celery-' || i, 0, 0, 'work', 'SUCCESS',"
    " '2026-01-01 00:00:00', '2026-01-01 00:00:00', '2026-01-01 00:01:00', 'host', 1, 1, 0 FROM n",
    "INSERT INTO taskstate_log (task_id, text, glued, created_at) {} SELECT i, 'a line', false,"
    " '2026-01-01 00:01:00' FROM n",
)
_TABLES = ("ProcessingTask", "taskstate_job", "taskstate_execution", "taskstate_log")


@pytest.fixture
def state(migrated_database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[TaskState]:
    """A `TaskState` with many finished tasks, whose statements SQLAlchemy tells of."""
    monkeypatch.setattr(engine, "can_pipeline", lambda _: False)
    app, made = make_app("memory://", "cache+memory://", migrated_database_url)
    app.conf.task_always_eager = True
    app.set_current()
    numbers = _NUMBERS[made.database.dialect].format(TASKS)
    with made.database.transaction() as connection:
        for rows in _ROWS:
            connection.execute(text(rows.format(numbers)))
        if connection.dialect.name == "postgresql":
            last = """SELECT setval(pg_get_serial_sequence('"ProcessingTask"', 'id'), :last)"""
            connection.execute(text(last), {"last": TASKS})
        for table in _TABLES:
            connection.execute(text(f'ANALYZE "{table}"'))
    yield made
    close_state(made)


@dataclass
class Looks:
    """The statements of a block, and of each what it looked at.

    Attributes:
        seen: How many there were.
        wide: Those that looked at too many rows, each with how it was carried out.
    """

    seen: int = 0
    wide: list[str] = field(default_factory=list)


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from _nodes(below)


def _rows(node: dict[str, Any]) -> float:
    kept, dropped = node.get("Actual Rows", 0), node.get("Rows Removed by Filter", 0)
    return float(node.get("Actual Loops", 1) * (kept + dropped + node.get("Rows Removed by Index Recheck", 0)))


def _told(node: dict[str, Any]) -> str:
    names = ("Node Type", "Relation Name", "Index Name", "Index Cond", "Filter")
    return f"{_rows(node):.0f} rows: " + ", ".join(str(node[name]) for name in names if name in node)


def _look_of_postgresql(cursor: Any, statement: str, parameters: Any) -> str | None:
    """Carry a statement out to see what it looks at, and undo it; returns its plan if that is too much."""
    if not statement.lstrip().upper().startswith(("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")):
        return None
    probe = cursor.connection.cursor()
    probe.execute("SAVEPOINT look")
    probe.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + statement, parameters)
    (found,) = probe.fetchone()
    probe.execute("ROLLBACK TO SAVEPOINT look")
    nodes = list(_nodes(found[0]["Plan"]))
    scanned = [node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"]
    wide = set(scanned) & set(_TABLES) or max(map(_rows, nodes)) > LOOKED_AT
    return "\n".join(_told(node) for node in nodes) if wide else None


@contextmanager
def looking(state: TaskState) -> Iterator[Looks]:
    """Look at how each statement within the block is carried out."""
    looks = Looks()
    steps = 0

    def before(connection: Connection, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        nonlocal steps
        looks.seen += 1
        if connection.dialect.name == "postgresql":
            plan = _look_of_postgresql(cursor, statement, parameters)
            looks.wide += [] if plan is None else [f"{statement}\n{plan}"]
        else:
            steps = 0
            cursor.connection.set_progress_handler(count, 100)

    def after(connection: Connection, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if connection.dialect.name == "sqlite":
            cursor.connection.set_progress_handler(None, 0)
            # The rows of a look are fetched later; one that has to go through all finds the first too late already.
            if steps > LOOKED_AT:
                looks.wide.append(f"{statement}\n{steps} steps of SQLite's machine")

    def count() -> None:
        nonlocal steps
        steps += 100

    event.listen(state.database.engine, "before_cursor_execute", before)
    event.listen(state.database.engine, "after_cursor_execute", after)
    try:
        yield looks
    finally:
        event.remove(state.database.engine, "before_cursor_execute", before)
        event.remove(state.database.engine, "after_cursor_execute", after)


def read(work: Callable[[Connection, TaskState], object]) -> Callable[[TaskState], object]:
    return lambda state: state.database.read(lambda connection: work(connection, state))


def page(**wanted: Any) -> Callable[[TaskState], object]:
    return read(lambda connection, state: listing.find_page(connection, state.settings, TaskFilter(**wanted)))


ALL = text("SELECT max(task_id) FROM taskstate_log WHERE text = 'no line'")
LOOKS: dict[str, Callable[[TaskState], object]] = {
    "list": read(lambda connection, state: reading_tasks.list_tasks(connection, state.settings)),
    "list of open tasks": read(
        lambda connection, state: reading_tasks.list_tasks(connection, state.settings, status="PENDING")
    ),
    "page": page(),
    "page of open tasks": page(status="PENDING"),
    "page of failed tasks": page(status="ERROR"),
    "page of waiting tasks": page(waiting=True),
    "counts": read(lambda connection, state: listing.count(connection)),
    "get_by_id": lambda state: ProcessingTask.get_by_id(TASKS // 2),
    "show": read(lambda connection, state: reading_tasks.show(connection, state.settings, TASKS // 2)),
    "describe": lambda state: state.describe(TASKS // 2),
    "find": lambda state: state.find(f"celery-{TASKS // 2}"),
    "start, run and end": lambda state: state.start(jobs.say.s()),
    "upkeep": lambda state: state.upkeep(force=False),
    "upkeep that leads": lambda state: state.upkeep(force=True),
}


def test_what_is_done_often_looks_at_few_of_many_tasks(state: TaskState) -> None:
    wide: list[str] = []
    for name, look in LOOKS.items():
        look(state)
        with looking(state) as looks:
            look(state)
        assert looks.seen, name
        wide += [f"{name}: {one}" for one in looks.wide]
    with looking(state) as looks:
        state.database.read(lambda connection: connection.execute(ALL).all())

    assert not wide, "\n".join(wide)
    # And one that does is noticed.
    assert len(looks.wide) == 1


def test_removal_of_a_few_tasks_looks_at_no_others(state: TaskState) -> None:
    with state.database.transaction() as connection:
        connection.execute(
            text('UPDATE "ProcessingTask" SET finished_at = :young WHERE id > 20'), {"young": "2099-01-01 00:00:00"}
        )
    with looking(state) as looks:
        pruned = state.prune(timedelta(days=1))

    assert pruned.tasks == 20
    # It goes through the keys of all in pages of 1,000.
    assert not looks.wide, "\n".join(looks.wide)
