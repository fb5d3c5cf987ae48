"""The current session: whose it is, how long it lasts, and that a read leaves nothing open."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flask
import pytest
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from qhana_taskstate import ProcessingTask, TaskFile, TaskState, TaskUpdateSubscription, plugin_task, taskstate
from tests.apps.jobs import boom, remember, say
from tests.contract.conftest import MakeState, count_rows

pytestmark = pytest.mark.versions

SEEN: list[Any] = []


@plugin_task(name="contract.inner_session")
def inner() -> None:
    SEEN.append(taskstate.session)


@plugin_task(name="contract.outer_session")
def outer() -> None:
    SEEN.append(taskstate.session)
    inner.delay()
    inner()


def _expired(state: TaskState, task: ProcessingTask) -> bool:
    state.session.expire(task)
    return True


READS: dict[str, Callable[[TaskState, ProcessingTask], Any]] = {
    "get_by_id": lambda state, task: ProcessingTask.get_by_id(task.id),
    "missing id": lambda state, task: ProcessingTask.get_by_id(10**9),
    "steps": lambda state, task: _expired(state, task) and len(task.steps),
    "outputs": lambda state, task: _expired(state, task) and len(task.outputs),
    "links": lambda state, task: len(task.links),
    "subscriptions": lambda state, task: len(task.subscriptions),
    "back reference": lambda state, task: state.session.query(TaskFile).all()[0].task.task_name,
    "expired attribute": lambda state, task: _expired(state, task) and task.task_name,
    "log": lambda state, task: task.task_log,
    "refresh": lambda state, task: state.session.refresh(task),
    "describe": lambda state, task: state.describe(task),
    "find": lambda state, task: state.find("c"),
    "by subscriber": lambda state, task: TaskUpdateSubscription.get_by_task_and_subscriber(task, "http://x", event=...),
    "wait": lambda state, task: _timeout(state, task),
    "refused start": lambda state, task: _refused(state, task),
}


def _timeout(state: TaskState, task: ProcessingTask) -> None:
    with pytest.raises(TimeoutError):
        state.wait(task, timeout=0)


def _refused(state: TaskState, task: ProcessingTask) -> None:
    with pytest.raises(Exception, match="cannot be answered"):
        state.start(say.s(), task=task, answers="no such step")


@pytest.mark.databases("postgresql")
def test_read_leaves_no_transaction_open(queued: TaskState, taskstate_database_url: str) -> None:
    task = queued.start(say.s(), task_id="c")
    output = TaskFile(
        task=task,
        security_tag="t",
        storage_provider="local_filesystem",
        file_name="f",
        file_storage_data="/f",
        file_type="x",
        mimetype="text/csv",
    )
    output.save(commit=True)
    watcher = create_engine(taskstate_database_url, poolclass=NullPool)
    left = {}
    for name, read in READS.items():
        read(queued, task)
        with watcher.connect() as connection:
            left[name] = connection.execute(
                text(
                    "SELECT count(*) FROM pg_stat_activity"
                    " WHERE state LIKE 'idle in transaction%' AND datname = current_database()"
                )
            ).scalar_one()
        queued.session.rollback()

    assert {name for name, count in left.items() if count} == set()


def test_each_thread_has_its_own_session_and_keeps_it(queued: TaskState) -> None:
    seen: list[Any] = []

    def look() -> None:
        seen.append((taskstate.session, taskstate.session))
        taskstate.session.close()

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert all(first is second for first, second in seen)
    assert len({id(queued.session), *(id(first) for first, _ in seen)}) == 3


def test_scope_has_its_own_session_and_rolls_back(queued: TaskState) -> None:
    outer = queued.session
    with queued.session_scope() as session:
        assert queued.session is session
        assert session is not outer
        with queued.session_scope() as inner:
            assert queued.session is inner is not session
        ProcessingTask("lost").save()
        session.flush()
    assert queued.session is outer
    assert count_rows(queued)["ProcessingTask"] == 0


def test_execution_has_its_own_session_and_a_nested_eager_one_shares_it(eager: TaskState) -> None:
    SEEN.clear()
    before = eager.session
    assert eager.start(outer.s()).status == "SUCCESS"

    assert SEEN[0] is SEEN[1] is SEEN[2]
    assert SEEN[0] is not before
    assert eager.session is before


def test_web_request_has_its_own_session(queued: TaskState) -> None:
    web = flask.Flask("web")
    seen: list[Any] = []
    for _ in range(2):
        with web.app_context():
            seen.append(queued.session)
            assert queued.session is seen[-1]
            ProcessingTask("unsaved").save()
            queued.session.flush()
    assert seen[0] is not seen[1]
    assert queued.session not in seen
    assert count_rows(queued)["ProcessingTask"] == 0


@pytest.mark.databases("sqlite")
def test_memory_database_is_shared_by_threads(make_state: MakeState) -> None:
    state = make_state(url="sqlite://", eager=True)
    state.upgrade()
    ids: list[int] = []

    def run() -> None:
        state.app.set_current()
        ids.append(state.start(remember.s("k", 1)).id)
        state.session.close()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(ids)) == 4
    assert all(state.wait(task_id, timeout=1).data == {"k": 1} for task_id in ids)


@pytest.mark.databases("sqlite")
def test_memory_database_survives_an_untracked_task_that_fails(make_state: MakeState) -> None:
    state = make_state(url="sqlite://", eager=True)
    state.upgrade()
    task = ProcessingTask("kept")
    task.save(commit=True)
    state.session.close()

    boom.delay()

    assert ProcessingTask.get_by_id(1) is not None


FORK = """
import os, sys
from sqlalchemy import text
from qhana_taskstate import ProcessingTask
from tests.apps.factory import make_app
app, state = make_app("memory://", None, sys.argv[1])
state.upgrade()
task = ProcessingTask("parent")
task.save(commit=True)
backend = text("SELECT pg_backend_pid()")
mine = state.session.execute(backend).scalar()
state.session.rollback()
child = os.fork()
if child == 0:
    theirs = state.session.execute(backend).scalar()
    os._exit(3 if theirs == mine else 0)
_, status = os.waitpid(child, 0)
ProcessingTask.get_by_id(task.id).save(commit=True)
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.databases("postgresql")
def test_session_used_before_and_after_a_fork_gets_a_connection_of_its_own(
    taskstate_database_url: str, pytestconfig: pytest.Config
) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FORK, taskstate_database_url],
        cwd=pytestconfig.rootpath,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.fixture
def hosted(make_state: MakeState, migrated_database_url: str) -> Any:
    """A Flask app with Flask-SQLAlchemy, whose session was handed in."""
    web = flask.Flask("host")
    web.config["SQLALCHEMY_DATABASE_URI"] = migrated_database_url
    db = SQLAlchemy(web)
    state = make_state(session=db.session)
    yield web, db, state
    with web.app_context():
        db.session.remove()
        db.engine.dispose()


def test_session_of_the_host_is_used(hosted: Any) -> None:
    web, db, state = hosted
    with web.app_context():
        assert state.session is db.session()
        task = state.start(say.s())
        assert task in db.session
        found = ProcessingTask.get_by_id(task.id)
        assert found is task
        with state.session_scope() as session:
            assert session is db.session()


def test_eager_task_uses_the_session_of_the_host(hosted: Any) -> None:
    web, _db, state = hosted
    state.app.conf.task_always_eager = True
    with web.app_context():
        task = state.start(remember.s("k", [1]))
        assert (task.status, task.data, task.task_log) == ("SUCCESS", {"k": [1]}, "remembered k")


@pytest.mark.parametrize("call", ["finish", "cancel"])
def test_task_is_ended_outside_of_the_hosts_context(hosted: Any, call: str) -> None:
    web, _, state = hosted
    with web.app_context():
        task_id = state.start(say.s(), finishes=False).id

    assert getattr(state, call)(task_id) is True


@pytest.mark.databases("sqlite")
def test_plain_delay_outside_of_the_hosts_context_is_adopted(hosted: Any) -> None:
    _web, _, state = hosted
    say.delay()

    assert count_rows(state)["taskstate_job"] == 1


def test_files_of_a_relative_sqlite_url_are_made_by_upgrade_alone(
    make_state: MakeState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_state(url="sqlite:///nobody.db")

    assert not (tmp_path / "nobody.db").exists()
