"""Apps in this process: eager ones, and ones whose broker keeps messages in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import _state
from sqlalchemy import func, literal, select, union_all

from qhana_taskstate import TaskState
from qhana_taskstate.database.tables import base
from qhana_taskstate.testing.sql_server import SqlServer
from tests.apps.factory import close_state, make_app

MakeState = Callable[..., TaskState]


@pytest.fixture
def make_state(migrated_database_url: str) -> Iterator[MakeState]:
    """Make a `TaskState` on the test's database: `make_state(eager=True, broker="memory://", **settings)`."""
    made: list[TaskState] = []

    def make(*, eager: bool = False, broker: str = "memory://", url: str | None = None, **settings: Any) -> TaskState:
        app, state = make_app(broker, "cache+memory://", url or migrated_database_url, **settings)
        app.conf.task_always_eager = eager
        app.set_current()
        made.append(state)
        return state

    yield make
    for state in made:
        close_state(state)


@pytest.fixture
def empty_database_url(database_server: SqlServer | None, tmp_path: Path) -> str:
    """URL of a database without tables, on the server of the test's database."""
    return f"sqlite:///{tmp_path / 'empty.db'}" if database_server is None else database_server.create_database()


@pytest.fixture
def eager(make_state: MakeState) -> TaskState:
    """A `TaskState` whose tasks run where they are started."""
    return make_state(eager=True, flush_interval_seconds=0.1)


@pytest.fixture
def queued(make_state: MakeState) -> TaskState:
    """A `TaskState` whose messages stay in the memory of this process: nobody runs them."""
    return make_state()


def count_rows(state: TaskState) -> dict[str, int]:
    """Count the rows of every table of the package."""
    tables = base.metadata.sorted_tables
    counts = [select(literal(table.name), func.count()).select_from(table) for table in tables]
    with state.database.reading() as connection:
        return {name: count for name, count in connection.execute(union_all(*counts))}


@pytest.fixture(autouse=True)
def _joins_allowed_afterwards() -> Iterator[None]:
    """Undo what eager tasks in several threads leave behind: Celery keeps one flag for all threads (celery 5.7)."""
    yield
    _state._set_task_join_will_block(False)  # type: ignore[attr-defined]  # not in the stubs
