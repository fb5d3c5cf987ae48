"""`TaskState.close` leaves no thread and no connection of this process behind."""

from __future__ import annotations

import threading

import pytest
from celery import Celery
from sqlalchemy import create_engine, text
from sqlalchemy.pool import StaticPool

from qhana_taskstate import ProcessingTask, TaskState
from tests.contract.conftest import MakeState
from tests.waiting import wait_until

pytestmark = pytest.mark.versions


def threads_of_ours() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("qhana_taskstate")}


def test_closed_state_has_no_thread(make_state: MakeState) -> None:
    before = threads_of_ours()
    state = make_state(eager=True, flush_interval_seconds=60)
    state.recorder.pulse()
    state._sender.begin()
    assert len(threads_of_ours() - before) == 2

    state.close()

    wait_until("its threads have ended", lambda: not threads_of_ours() - before, timeout=5)


@pytest.mark.databases("postgresql")
def test_closed_state_has_no_connection(make_state: MakeState, migrated_database_url: str) -> None:
    state = make_state()
    state.start(Celery.signature(state.app, "work"))
    observer = create_engine(migrated_database_url)
    others = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )

    def connections() -> int:
        with observer.connect() as connection:
            return int(connection.execute(others).scalar_one())

    assert connections() > 0
    state.close()

    wait_until("its connections are closed", lambda: connections() == 0, timeout=5)
    observer.dispose()


def test_closed_state_begins_anew_when_it_is_used(make_state: MakeState) -> None:
    state = make_state()
    task = state.start(Celery.signature(state.app, "work"))
    state.close()
    state.close()

    assert ProcessingTask.get_by_id(task.id) is not None
    assert state.cancel(task.id)
    assert state.wait(task.id, timeout=5).status == "ERROR"


def test_telling_subscribers_at_the_end_does_not_begin_anew(make_state: MakeState) -> None:
    state = make_state(webhook_allowed_networks=["127.0.0.0/8"])
    task = ProcessingTask("by hand")
    task.save(commit=True)
    state.subscribe(task, "http://127.0.0.1:9/", "https://a/")
    task.task_status = "SUCCESS"
    state.session.commit()

    state.close()

    assert state._parts is None


def test_state_that_was_never_used_can_be_closed() -> None:
    state = TaskState(database_url="postgresql+psycopg://nobody@127.0.0.1:1/nothing")

    state.close()

    assert state._parts is None


def test_engine_of_the_host_stays_open() -> None:
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    app = Celery("hosted", broker="memory://", set_as_current=False)
    state = TaskState(app, engine=engine)
    state.upgrade()

    state.close()

    with engine.connect() as connection:
        assert connection.execute(text('SELECT count(*) FROM "ProcessingTask"')).scalar_one() == 0
    engine.dispose()
    app.close()
