"""The database goes away while healthy tasks run, and comes back."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from celery import Celery, chain, group
from redis import Redis
from sqlalchemy import Connection, event, make_url, select
from sqlalchemy.orm import Session

from qhana_taskstate import DatabaseUnavailableError, ProcessingTask, TaskState
from qhana_taskstate.database.tables.executions import execution_table
from qhana_taskstate.database.tables.jobs import job_table
from qhana_taskstate.recording.backlog import Fact
from qhana_taskstate.testing.plugin import StartWorker
from qhana_taskstate.testing.postgres_server import PostgresServer
from tests.crash.conftest import SOON, Site
from tests.crash.test_lost_work import log, work
from tests.proxy import CuttingProxy
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
    taskstate.close()
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


def errors_of(site: Site, task_id: int) -> list[tuple[str, str | None]]:
    with site.taskstate.database.reading() as connection:
        rows = connection.execute(select(execution_table).where(execution_table.c.task_id == task_id)).all()
    return [(row.state, row.error_type) for row in rows]


def test_task_that_begins_and_ends_while_the_database_is_away_is_recorded_in_order(
    away: Site, postgres: PostgresServer
) -> None:
    away.worker()
    task_id = away.taskstate.start(work(away, "waits", str(away.folder)), countdown=2).id
    away.taskstate.session.close()

    postgres.stop()
    away.begun()
    away.go()
    wait_until("it has ended", lambda: (away.folder / "ended").exists(), timeout=15)
    ended = time.time()
    postgres.start()

    task = away.taskstate.wait(task_id, timeout=20)
    assert (task.status, task.task_log.splitlines()) == ("SUCCESS", ["began", "went on"])
    with away.taskstate.database.reading() as connection:
        row = connection.execute(select(execution_table)).one()
    assert row.state == "SUCCESS"
    # When it began, not when that could be written.
    assert row.started_at.timestamp() < ended


def test_messages_published_while_the_database_is_away_belong_to_the_task(away: Site, postgres: PostgresServer) -> None:
    away.worker()
    canvas = chain(work(away, "waits", str(away.folder)), work(away, "counts", str(away.folder)).set(immutable=True))
    task_id = away.taskstate.start(canvas).id
    away.begun()
    away.taskstate.session.close()

    postgres.stop()
    away.go()
    wait_until("the second has run", lambda: (away.folder / "begun").read_text().count("counts") == 1, timeout=20)
    postgres.start()

    assert away.taskstate.wait(task_id, timeout=20).status == "SUCCESS"
    assert sorted(away.executions(task_id)) == [("counts", "SUCCESS", 0), ("waits", "SUCCESS", 0)]


def test_child_killed_while_the_database_is_away_is_told_when_it_is_back(away: Site, postgres: PostgresServer) -> None:
    worker = away.worker()
    task_id = away.taskstate.start(work(away, "waits", str(away.folder))).id
    away.begun()
    away.taskstate.session.close()

    postgres.stop()
    worker.kill_child()
    worker.wait_for_log("WorkerLostError", 20)
    # The parent of the pool has no thread for it; its event loop writes what waits.
    postgres.start()

    assert away.taskstate.wait(task_id, timeout=20).status == "ERROR"
    assert errors_of(away, task_id)[0][1] == "WorkerLostError"


def test_what_waited_too_long_is_logged_whole_and_once_and_its_task_ends(away: Site, postgres: PostgresServer) -> None:
    away.environment["TASKSTATE_KEEP_FACTS_SECONDS"] = "1"
    worker = away.worker()
    task_id = away.taskstate.start(work(away, "waits", str(away.folder))).id
    wait_until("its log is written", lambda: log(task_id) == "began", timeout=15)
    away.taskstate.session.close()

    postgres.stop()
    away.go()
    worker.wait_for_log("cannot be recorded, it waited for 1 s", 20)
    postgres.start()

    assert away.taskstate.wait(task_id, timeout=20).status == "ERROR"
    assert errors_of(away, task_id) == [("LOST", "FactLostError")]
    told = [line for line in worker.logs().splitlines() if "cannot be recorded" in line]
    assert len(told) == 1
    assert "went on" in told[0]
    assert "SUCCESS" in told[0]


def test_worker_that_starts_without_its_database_says_so_and_works_when_it_is_back(
    away: Site, postgres: PostgresServer
) -> None:
    postgres.stop()
    worker = away.worker()
    worker.wait_for_log("starts without its database", 30)
    postgres.start()
    # This process has connections that broke with the server; what `start` says of those is told elsewhere.
    away.taskstate.database.dispose()

    task_id = away.taskstate.start(work(away, "nothing")).id

    assert away.taskstate.wait(task_id, timeout=20).status == "SUCCESS"


def _nothing(connection: Connection) -> None:
    connection.execute(select(1))


def _note_number(written: list[int], number: int, _: object) -> None:
    written.append(number)


def test_code_waits_a_few_seconds_for_a_database_that_is_away_and_only_once(
    away: Site, postgres: PostgresServer
) -> None:
    written: list[int] = []
    postgres.stop()

    began = time.monotonic()
    for number in range(200):
        note = partial(_note_number, written, number)
        assert not away.taskstate.recorder.record(Fact(number % 3, f"fact {number}", _nothing, note))
    assert time.monotonic() - began < 4

    postgres.start()
    wait_until("all are written", lambda: len(written) == 200, timeout=20)
    assert written == sorted(written)


def test_start_says_that_the_database_is_away_and_leaves_nothing(away: Site, postgres: PostgresServer) -> None:
    postgres.stop()
    with pytest.raises(DatabaseUnavailableError, match="cannot be reached"):
        away.taskstate.start(work(away, "nothing"))

    postgres.start()
    with pytest.raises(AssertionError):
        # Nothing comes later either.
        wait_until("there is a task", lambda: ProcessingTask.get_by_id(1), timeout=1)
    assert Redis.from_url(away.environment["CELERY_BROKER_URL"]).llen("crash") == 0


@pytest.mark.parametrize("size", [1, 3])
def test_start_whose_commit_was_cut_ends_what_was_committed(away: Site, postgres: PostgresServer, size: int) -> None:
    with CuttingProxy(postgres.port) as proxy:
        direct = make_url(away.environment["TASKSTATE_DATABASE_URL"])
        url = direct.set(port=proxy.port).render_as_string(hide_password=False)
        app = Celery("crash", broker=away.environment["CELERY_BROKER_URL"], include=["tests.apps.crash"])
        client = TaskState(app, database_url=url, **SOON)
        canvas = group([work(away, "nothing") for _ in range(size)]) if size > 1 else work(away, "nothing")

        def cut(session: Session) -> None:
            proxy.cut("answer")

        app.set_current()
        event.listen(client.session, "before_commit", cut)
        # Everything is flushed by then, so that what is cut is the answer to COMMIT.
        with pytest.raises(DatabaseUnavailableError, match="for a moment"):
            client.start(canvas)
        event.remove(client.session, "before_commit", cut)

        def status() -> str | None:
            with away.taskstate.database.reading() as connection:
                return connection.execute(select(job_table.c.end_status)).scalar_one_or_none()

        wait_until("the half-done start is ended", lambda: status() == "ERROR", timeout=15)
        client.close()
        app.close()
    away.app.set_current()
    assert "its start was not completed" in log(1)
    away.taskstate.session.close()


def test_sqlite_locked_by_somebody_keeps_no_task_waiting_for_long(
    broker_url: str, start_worker: StartWorker, tmp_path: Path
) -> None:
    path = tmp_path / "taskstate.db"
    app = Celery("crash", broker=broker_url, include=["tests.apps.crash"])
    app.conf.task_default_queue = "crash"
    taskstate = TaskState(app, database_url=f"sqlite:///{path}", **SOON)
    taskstate.upgrade()
    app.set_current()
    environment = {f"TASKSTATE_{name.upper()}": str(value) for name, value in SOON.items()}
    environment |= {"CELERY_BROKER_URL": broker_url, "TASKSTATE_DATABASE_URL": f"sqlite:///{path}"}
    site = Site(app, taskstate, tmp_path, environment, start_worker)
    site.worker()
    task_id = taskstate.start(work(site, "waits", str(tmp_path)), countdown=1).id
    taskstate.session.close()

    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    site.begun()
    site.go()
    wait_until("it has ended", lambda: (tmp_path / "ended").exists(), timeout=12)
    holder.execute("COMMIT")
    holder.close()

    task = taskstate.wait(task_id, timeout=20)
    assert (task.status, task.task_log.splitlines()) == ("SUCCESS", ["began", "went on"])
    taskstate.close()
    app.close()
