"""A process that died on the machine of an observer: settled soon, with the default settings."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from celery import signature
from sqlalchemy import Connection, update

from qhana_taskstate import ProcessingTask, TaskState
from qhana_taskstate.database.tables.upkeep import upkeep_table
from qhana_taskstate.facts import ExecutionKey
from qhana_taskstate.liveness.process import is_gone, started_at, this_host
from qhana_taskstate.store.executions import begin as executions_begin
from qhana_taskstate.store.task import jobs
from tests.contract.conftest import make_state as make_state
from tests.crash.conftest import Site
from tests.waiting import wait_until


def test_process_is_gone_once_it_ended_and_not_where_it_cannot_be_seen() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        started = started_at(process.pid)
        assert not is_gone(this_host(), process.pid, started)
        assert is_gone(this_host(), process.pid, -1.0)
        assert not is_gone("elsewhere", process.pid, -1.0)
        process.kill()
        process.wait()
    assert is_gone(this_host(), process.pid, started)
    assert not is_gone("elsewhere", process.pid, started)
    assert not is_gone(this_host(), process.pid, None)


@pytest.mark.parametrize("leader", ["this process", "another machine"])
def test_work_of_a_dead_process_is_settled_within_15_seconds(make_state: object, leader: str) -> None:
    state: TaskState = make_state()  # type: ignore[operator]
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        runner = executions_begin.Runner(
            worker="w", host=this_host(), pid=process.pid, pid_started=started_at(process.pid)
        )

        def begin(connection: Connection) -> int:
            ref = jobs.take_up(connection, jobs.add_task(connection, "dies")).ref
            executions_begin.begin(connection, ref, ExecutionKey("a"), name="dies", runner=runner)
            return ref.task_id

        task_id = state.recorder.write(begin)
        if leader == "another machine":
            state.upkeep()
            with state.database.transaction() as connection:
                connection.execute(update(upkeep_table).values(owner="other"))
        process.kill()
    died = time.monotonic()

    task = state.wait(task_id, timeout=20)

    assert time.monotonic() - died < 15
    assert task.status == "ERROR"
    assert "its process is dead" in task.task_log


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("observer", ["a process that waits", "the command line", "another worker"])
def test_worker_killed_with_its_children_is_settled_within_15_seconds_with_the_defaults(
    site: Site, observer: str
) -> None:
    site.environment = {key: value for key, value in site.environment.items() if "URL" in key or "BACKEND" in key}
    client = TaskState(site.app, database_url=site.environment["TASKSTATE_DATABASE_URL"])
    worker = site.worker()
    task_id = client.start(signature("tests.apps.crash.waits", args=(str(site.folder),), app=site.app)).id
    site.begun()
    spent = 0.0
    if observer == "another worker":
        site.worker()
    elif observer == "the command line":
        # What it takes to start is no part of the promise.
        spent = -time.monotonic()
        site.command("list")
        spent += time.monotonic()
    worker.kill_tree()
    died = time.monotonic()

    if observer == "a process that waits":
        client.wait(task_id, timeout=30)
    elif observer == "the command line":
        site.command("wait", str(task_id), "--timeout", "30")
    else:
        wait_until("it is settled", lambda: _is_ended(task_id), timeout=30)

    assert time.monotonic() - died - spent < 15
    assert _is_ended(task_id)
    client.close()


def _is_ended(task_id: int) -> bool:
    task = ProcessingTask.get_by_id(task_id)
    return task is not None and task.status == "ERROR"
