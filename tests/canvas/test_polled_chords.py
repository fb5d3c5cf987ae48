"""Chords on result backends that cannot count: what waits for their header does not outlive its task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord
from celery.exceptions import ChordError
from sqlalchemy import func, select

from qhana_taskstate import ProcessingTask, TaskState
from qhana_taskstate.database.tables.executions import execution_table
from qhana_taskstate.testing.plugin import StartWorker
from qhana_taskstate.testing.postgres_server import PostgresServer
from tests.apps.factory import close_state, make_app
from tests.apps.jobs import fail_later, say, wait_for_file
from tests.waiting import wait_until

Started = tuple[TaskState, Path]


@pytest.fixture(params=["sqlite", "postgresql", "files"])
def polled(
    request: pytest.FixtureRequest,
    migrated_database_url: str,
    start_worker: StartWorker,
    broker_url: str,
    tmp_path: Path,
) -> Iterator[Started]:
    """A worker whose result backend is polled, and the client's side of it."""
    (tmp_path / "results").mkdir()
    backend = {"sqlite": f"db+sqlite:///{tmp_path}/results.db", "files": f"file://{tmp_path}/results"}.get(
        request.param
    )
    if backend is None:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        backend = f"db+{server.create_database()}"
    app, state = make_app(broker_url, backend, migrated_database_url)
    app.set_current()
    start_worker("tests.apps.worker:app", env={"CELERY_RESULT_BACKEND": backend}, concurrency=2)
    yield state, tmp_path
    close_state(state)


def unlocks(state: TaskState, task_id: int) -> list[tuple[str, bool]]:
    """States of what waits for headers, and whether it is open."""
    columns = execution_table.c
    with state.database.reading() as connection:
        rows = connection.execute(
            select(columns.state, columns.closed_at).where(
                columns.task_id == task_id, columns.name == "celery.chord_unlock"
            )
        )
        return [(row.state, row.closed_at is None) for row in rows]


def is_settled(state: TaskState, task_id: int) -> bool:
    with state.database.reading() as connection:
        columns = execution_table.c
        query = select(columns.name).where(columns.task_id == task_id, columns.closed_at.is_(None))
        return connection.execute(query).first() is None


def _cancel(state: TaskState, task_id: int) -> None:
    assert state.cancel(task_id)


def _leave_alone(state: TaskState, task_id: int) -> None:
    """A member fails by itself."""


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("end", [_leave_alone, _cancel])
def test_unlock_ends_with_its_task_and_everybody_gets_an_answer(
    polled: Started, end: Callable[[TaskState, int], None]
) -> None:
    state, folder = polled
    go = folder / "go"
    # Two run; those behind them have not begun when the task ends.
    first = wait_for_file.s(str(go)) if end is _cancel else fail_later.s(str(go))
    members: list[Any] = [first, wait_for_file.s(str(go)), say.s("c"), chain(say.s("d"), say.si("e"))]
    body = say.si("body").set(task_id=f"body-of-{folder.parent.name}-{folder.name}")
    task = state.start(chord(members, body))
    wait_until("it waits for the header", lambda: len(unlocks(state, task.id)) > 0)

    end(state, task.id)
    go.touch()
    state.wait(task.id, timeout=30)
    wait_until("nothing of the task is open", lambda: is_settled(state, task.id), timeout=20)

    assert state.wait(task.id).status == "ERROR"
    result: Any = state.app.AsyncResult(body.options["task_id"])
    with pytest.raises(ChordError):
        result.get(timeout=10)
    with state.database.reading() as connection:
        columns = execution_table.c
        names = select(columns.celery_id).where(columns.task_id == task.id, columns.name == say.name)
        ids = list(connection.execute(names).scalars())
    for celery_id in ids:
        wait_until("a member has an answer", lambda celery_id=celery_id: state.app.AsyncResult(celery_id).ready())  # type: ignore[misc]


@pytest.mark.databases("sqlite")
def test_waiting_for_a_header_that_runs_leaves_no_row_a_second_behind(polled: Started) -> None:
    state, folder = polled
    go = folder / "go"
    task = state.start(chord([wait_for_file.s(str(go)), say.s("b")], say.si("body")))

    def attempts() -> int:
        with state.database.reading() as connection:
            columns = execution_table.c
            newest = select(func.max(columns.retries)).where(
                columns.task_id == task.id, columns.name == "celery.chord_unlock"
            )
            return int(connection.execute(newest).scalar_one() or 0)

    wait_until("it asked several times", lambda: attempts() >= 3, timeout=20)
    assert len(unlocks(state, task.id)) <= 3
    go.touch()

    assert state.wait(task.id, timeout=30).status == "SUCCESS"
    assert len(unlocks(state, task.id)) <= 3


@pytest.mark.databases("sqlite")
def test_chord_that_the_result_backend_refuses_leaves_nothing_pending(
    migrated_database_url: str, broker_url: str
) -> None:
    app, state = make_app(broker_url, "rpc://", migrated_database_url)
    app.set_current()

    with pytest.raises(NotImplementedError):
        state.start(chord([say.s("a"), say.s("b")], say.si("body")))

    task_id = state.session.execute(select(ProcessingTask.id)).scalar_one()
    task = ProcessingTask.get_by_id(task_id)
    assert task is not None
    assert task.status == "ERROR"
    assert "does not support chords" in task.task_log
    close_state(state)
