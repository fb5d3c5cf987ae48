"""The progress of a task over time."""

from __future__ import annotations

from datetime import timedelta

import pytest
from flask.testing import FlaskClient

from qhana_taskstate import ProcessingTask, TaskState
from qhana_taskstate.database.dialects import database_time
from qhana_taskstate.store.progress import history
from tests.apps import jobs


def sample(state: TaskState, seconds: float) -> dict[int, float]:
    """Take samples as upkeep does, some time from now."""
    with state.database.transaction() as connection:
        moment = database_time(connection) + timedelta(seconds=seconds)
        shares = history.due(connection, moment)
        history.add(connection, moment, shares)
        return shares


@pytest.mark.mariadb
def test_samples_become_rarer_and_go_with_their_task(state: TaskState) -> None:
    state.app.conf.task_always_eager = False
    task = state.start(jobs.nothing.s())
    assert sample(state, 0) == {}
    task.progress_value = 40
    task.save(commit=True)
    assert sample(state, 1) == {task.id: 0.4}
    assert sample(state, 1000) == {task.id: 0.4}
    # Less than a hundredth of its age ago.
    assert sample(state, 1005) == {}
    assert sample(state, 1020) == {task.id: 0.4}
    state.finish(task.id)
    assert sample(state, 9000) == {}
    with state.database.reading() as connection:
        assert [round(found.share, 3) for found in history.read(connection, task.id)] == [0.4, 0.4, 0.4]
        assert history.read(connection, task.id + 1) == []


@pytest.mark.databases("sqlite")
def test_upkeep_takes_them(state: TaskState) -> None:
    state.app.conf.task_always_eager = False
    task = state.start(jobs.nothing.s())
    task.progress_value = 10
    task.save(commit=True)
    state.upkeep()
    with state.database.reading() as connection:
        assert len(history.read(connection, task.id)) == 1


@pytest.mark.databases("sqlite")
def test_the_page_draws_them(client: FlaskClient, state: TaskState) -> None:
    state.app.conf.task_always_eager = False
    task: ProcessingTask = state.start(jobs.nothing.s())
    task.progress_value = 5
    task.save(commit=True)
    assert 'class="curve"' not in client.get(f"/tasks/{task.id}/page").text
    for value in (10, 20, 30):
        task.progress_value = value
        task.save(commit=True)
        sample(state, value)
    assert 'class="curve"' in client.get(f"/tasks/{task.id}/page").text
