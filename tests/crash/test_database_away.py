"""The database goes away while healthy tasks run, and comes back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery

from qhana_taskstate import TaskState
from qhana_taskstate.testing.plugin import StartWorker
from qhana_taskstate.testing.postgres_server import PostgresServer
from tests.crash.conftest import SOON, Site
from tests.crash.test_lost_work import log, work
from tests.waiting import wait_until


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def away(postgres: PostgresServer, broker_url: str, start_worker: StartWorker, tmp_path: Path) -> Iterator[Site]:
    """A site whose PostgreSQL belongs to this test."""
    url = postgres.create_database()
    app = Celery("crash", broker=broker_url, include=["tests.apps.crash"])
    app.conf.task_default_queue = "crash"
    environment = {f"TASKSTATE_{name.upper()}": str(value) for name, value in SOON.items()}
    environment |= {"CELERY_BROKER_URL": broker_url, "TASKSTATE_DATABASE_URL": url}
    taskstate = TaskState(app, database_url=url, **SOON)
    taskstate.upgrade()
    app.set_current()
    yield Site(app, taskstate, tmp_path, environment, start_worker)
    taskstate.session.close()
    taskstate.database.dispose()
    app.close()


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_task_that_runs_while_the_database_is_away_is_not_given_up(
    away: Site, postgres: PostgresServer, mode: str
) -> None:
    away.worker()
    away.worker()
    task_id = away.taskstate.start(work(away, "waits", str(away.folder))).id
    wait_until("its log is written", lambda: log(task_id) == "began", timeout=15)
    away.taskstate.session.close()

    postgres.stop(mode=mode)  # type: ignore[arg-type]  # both are modes
    time.sleep(2 * SOON["lost_after_seconds"])
    postgres.start()
    # Observers had the time to give it up, had they counted the outage as silence.
    time.sleep(2 * SOON["lost_after_seconds"])
    away.go()

    assert away.taskstate.wait(task_id, timeout=20).status == "SUCCESS"


def test_end_that_came_while_the_database_was_away_is_recorded_when_it_is_back(
    away: Site, postgres: PostgresServer
) -> None:
    worker = away.worker()
    task_id = away.taskstate.start(work(away, "waits", str(away.folder))).id
    wait_until("its log is written", lambda: log(task_id) == "began", timeout=15)
    away.taskstate.session.close()

    postgres.stop()
    away.go()
    worker.wait_for_log("waits until the database is back", 30)
    postgres.start()

    task = away.taskstate.wait(task_id, timeout=20)
    assert (task.status, task.task_log.splitlines()) == ("SUCCESS", ["began", "went on"])
