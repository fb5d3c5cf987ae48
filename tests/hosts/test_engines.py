"""Engines and application factories of the host."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Engine, StaticPool, create_engine, text

from qhana_taskstate import ProcessingTask, SettingsError, TaskState
from qhana_taskstate.testing.plugin import StartWorker
from qhana_taskstate.tracking.handlers.lifecycle import prepare_worker
from tests.apps.factory import close_state
from tests.apps.jobs import say
from tests.contract.conftest import MakeState
from tests.waiting import wait_until


class Host:
    """A project whose Celery app and extension are made at import, and whose URL only its factory knows."""

    def __init__(self) -> None:
        self.db = SQLAlchemy()
        self.celery = Celery("host", broker="memory://")
        self.state = TaskState(self.celery, session=self.db.session)

    def create_app(self, url: str) -> Flask:
        """Make the Flask app."""
        app = Flask("host")
        app.config["SQLALCHEMY_DATABASE_URI"] = url
        self.db.init_app(app)
        self.state.init_app(self.celery)
        self.celery.set_current()
        return app


@pytest.fixture
def host() -> Iterator[Host]:
    """The project, before its factory was called."""
    made = Host()
    yield made
    for engines in made.db._app_engines.values():
        engines[None].dispose()
    close_state(made.state)


def test_engine_is_found_at_first_use_inside_a_context(host: Host, tmp_path: Path) -> None:
    app = host.create_app(f"sqlite:///{tmp_path / 'app.db'}")
    with app.app_context():
        host.state.upgrade()
        task = say.start("x")
        assert host.db.session.get(ProcessingTask, task.id) is task
        assert host.state.database.engine is host.db.engine


def test_engine_of_the_only_app_is_found_outside_of_a_context_too(host: Host, tmp_path: Path) -> None:
    app = host.create_app(f"sqlite:///{tmp_path / 'app.db'}")
    prepare_worker(host.state.parts)
    with app.app_context():
        assert host.state.database.engine is host.db.engine


def test_without_an_app_the_error_says_what_to_pass_and_later_use_goes_on(host: Host, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="engine="):
        _ = host.state.database
    app = host.create_app(f"sqlite:///{tmp_path / 'app.db'}")
    host.state.upgrade()
    assert (tmp_path / "app.db").exists()
    assert app.config["SQLALCHEMY_DATABASE_URI"].endswith("app.db")


def test_second_app_of_the_factory_is_silent_and_has_its_own_database(host: Host, tmp_path: Path) -> None:
    for name in ("one", "two"):
        app = host.create_app(f"sqlite:///{tmp_path / name}.db")
        host.celery.finalize()
        with app.app_context():
            host.state.upgrade()
            assert say.start(name).id == 1
            assert host.state.database.engine is host.db.engine


@pytest.fixture
def engine() -> Iterator[Engine]:
    """An in-memory database of the host, which goes with its connection."""
    made = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    yield made
    made.dispose()


@pytest.mark.databases("sqlite")
def test_engine_of_the_host_keeps_its_connections_when_a_worker_starts(make_state: MakeState, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE hosts (id INTEGER)"))
    state = make_state(engine=engine)
    state.upgrade()
    prepare_worker(state.parts)
    state.recorder.catch_up()

    with engine.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM hosts")).scalar() == 0
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            with engine.begin() as connection:
                code = int(connection.execute(text("SELECT count(*) FROM hosts")).scalar() or 0)
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_worker_without_the_tables_says_so_once_and_goes_on_when_they_are_there(
    make_state: MakeState,
    empty_database_url: str,
    start_worker: StartWorker,
    broker_url: str,
    result_backend_url: str,
) -> None:
    worker = start_worker("tests.apps.impatient:app", env={"TASKSTATE_DATABASE_URL": empty_database_url})
    state = make_state(broker=broker_url, url=empty_database_url)
    state.app.conf.update(result_backend=result_backend_url)
    assert state.app.send_task("tests.apps.jobs.say", ["early"], queue="jobs").get(timeout=20) == "early"
    log = worker.logs()
    assert log.count("taskstate upgrade") == 1, log
    assert "SELECT" not in log and "INSERT" not in log and "Traceback" not in log

    state.upgrade()
    wait_until(
        "both children have seen it",
        lambda: worker.logs().count("the tables of task states are there") >= 2,
        timeout=20,
    )
    assert state.wait(state.start(say.s("late")).id, timeout=20).task_log == "late"
    assert worker.logs().count("taskstate upgrade") == 1
