"""Closers that come in the same instant, on real connections: the task always ends, and exactly once."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import count

import pytest
from sqlalchemy import Connection, select

from qhana_taskstate import ProcessingTask
from qhana_taskstate.clock import now
from qhana_taskstate.database.scripts.statement import Answers
from qhana_taskstate.database.tables.executions import execution_table
from qhana_taskstate.facade import TaskState
from qhana_taskstate.facts import ExecutionKey, Failure, Publication, TaskRef
from qhana_taskstate.states import ExecutionState
from qhana_taskstate.store.closing import close as closing_close
from qhana_taskstate.store.closing import holds, losses
from qhana_taskstate.store.closing.close import Closing
from qhana_taskstate.store.executions import begin as executions_begin
from qhana_taskstate.store.executions import registration
from qhana_taskstate.store.script import Script
from qhana_taskstate.store.task import jobs
from qhana_taskstate.store.task_end.outcome import Outcome
from tests.apps.factory import make_app

_numbers = count()

#: How many pairs race where the environment does not say; `RACE_PAIRS=300` is the long run of whoever changes closers.
_PAIRS = int(os.environ.get("RACE_PAIRS", "60"))


#: Closes something: a script, or a write that takes a connection.
Closer = Callable[[Connection], Outcome]

#: Makes what closes an execution as a success.
Succeed = Callable[[TaskRef, ExecutionKey], Closer]

#: A task, what is to close at the same instant, and how the task must end.
Made = tuple[TaskRef, list[Closer], str]


@pytest.fixture
def taskstate(migrated_database_url: str) -> Iterator[TaskState]:
    """A `TaskState` on a database of its own."""
    app, taskstate = make_app(None, None, migrated_database_url)
    app.set_current()
    yield taskstate
    taskstate.close()
    app.close()


def _new_task(connection: Connection, members: int) -> tuple[TaskRef, list[ExecutionKey]]:
    task_id = jobs.add_task(connection, "race")
    ref = jobs.take_up(connection, task_id).ref
    keys = [ExecutionKey(f"race-{next(_numbers)}") for _ in range(members)]
    registration.register(connection, task_id, [_publication(key) for key in keys], deadline_seconds=86400)
    return ref, keys


def _publication(key: ExecutionKey) -> Publication:
    return Publication(key, "member", None, None, now(), None, sent=True)


def _success(ref: TaskRef, key: ExecutionKey, *publications: Publication) -> Closer:
    closing = Closing(
        key=key,
        name="member",
        state=ExecutionState.SUCCESS,
        publications=publications,
        lines=["done"],
        deadline_seconds=86400,
    )
    return closing_close.close_script(ref, closing)


def _quiet_success(ref: TaskRef, key: ExecutionKey) -> Closer:
    closing = Closing(key=key, name="member", state=ExecutionState.SUCCESS, counts_members=False, kept=False)
    return _lingering(closing_close.close_script(ref, closing))


def _lingering(script: Script[Outcome]) -> Script[Outcome]:
    """Make a script slow between its look and its commit, so that the other closer comes in between."""

    def conclude(answers: Answers) -> Outcome | None:
        time.sleep(0.005)
        return script.conclude(answers)

    return replace(script, conclude=conclude)


def _failure(ref: TaskRef, key: ExecutionKey) -> Closer:
    failure = Failure(type="ValueError", message="raced")
    closing = Closing(key=key, name="member", state=ExecutionState.FAILURE, failure=failure)
    return closing_close.close_script(ref, closing)


def _two_members(connection: Connection, success: Succeed = _success) -> Made:
    ref, keys = _new_task(connection, 2)
    return ref, [success(ref, key) for key in keys], "SUCCESS"


def _release(ref: TaskRef, hold: str, key: ExecutionKey) -> Closer:
    return lambda connection: holds.release(connection, ref, hold, [_publication(key)], deadline_seconds=86400)


def _member_and_hold(connection: Connection, success: Succeed = _success) -> Made:
    ref, (key,) = _new_task(connection, 1)
    hold = holds.hold(connection, ref.task_id)
    # The client registers what it published at the release, perhaps after the worker had inserted it.
    return ref, [success(ref, key), _release(ref, hold, key)], "SUCCESS"


def _failure_and_success(connection: Connection, success: Succeed = _success) -> Made:
    ref, (bad, good) = _new_task(connection, 2)
    return ref, [_failure(ref, bad), success(ref, good)], "ERROR"


def _same_twice(connection: Connection, success: Succeed = _success) -> Made:
    ref, (key,) = _new_task(connection, 1)
    return ref, [success(ref, key), success(ref, key)], "SUCCESS"


def _parent_and_child(connection: Connection) -> Made:
    ref, (parent,) = _new_task(connection, 1)
    child = ExecutionKey(f"race-{next(_numbers)}")
    # Nobody recorded the child before: its own close inserts it, or its parent's does.
    return ref, [_success(ref, parent, _publication(child)), _success(ref, child)], "SUCCESS"


@pytest.mark.mariadb
@pytest.mark.databases("sqlite", "postgresql", "mariadb")
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(_two_members, id="two members"),
        pytest.param(partial(_two_members, success=_quiet_success), id="two members that report nothing"),
        pytest.param(
            partial(_member_and_hold, success=_quiet_success),
            id="a member that reports nothing and the release of the hold",
        ),
        pytest.param(
            partial(_failure_and_success, success=_quiet_success), id="a failure and a success that reports nothing"
        ),
        pytest.param(partial(_same_twice, success=_quiet_success), id="the same member twice, and it reports nothing"),
        pytest.param(_member_and_hold, id="a member and the release of the hold"),
        pytest.param(_failure_and_success, id="a failure and a success"),
        pytest.param(_same_twice, id="the same member twice"),
        pytest.param(_parent_and_child, id="a member and its child"),
    ],
)
def test_task_ends_exactly_once_when_two_close_in_the_same_instant(
    taskstate: TaskState, make: Callable[[Connection], Made]
) -> None:
    recorder = taskstate.recorder
    barrier = threading.Barrier(2)

    def close(closer: Closer) -> Outcome:
        barrier.wait(timeout=20)
        return recorder.write(closer)

    with ThreadPoolExecutor(max_workers=2) as threads:
        # A pair takes several times as long on MariaDB.
        for turn in range(_PAIRS // 3 if taskstate.database.dialect == "mysql" else _PAIRS):
            ref, closers, status = recorder.write(make)
            # Each thread goes first half of the times.
            futures: list[Future[Outcome]] = [threads.submit(close, c) for c in closers[:: 1 if turn % 2 else -1]]
            outcomes = [future.result(timeout=30) for future in futures]
            for outcome in outcomes:
                recorder.finish_showing(ref.task_id, outcome)

            ends = [outcome.ended for outcome in outcomes if outcome.ended is not None]
            assert ends == [status], f"turn {turn}"
            task = ProcessingTask.get_by_id(ref.task_id)
            assert task is not None
            assert (task.status, task.is_finished) == (status, True), f"turn {turn}"


@pytest.mark.mariadb
@pytest.mark.databases("sqlite", "postgresql", "mariadb")
@pytest.mark.parametrize("success", [_success, _quiet_success], ids=["with a report", "without a report"])
def test_work_started_while_the_last_member_closes_is_refused_or_waited_for(
    taskstate: TaskState, success: Succeed
) -> None:
    recorder = taskstate.recorder
    barrier = threading.Barrier(2)

    def start(ref: TaskRef) -> bool:
        def work(connection: Connection) -> bool:
            if jobs.take_up(connection, ref.task_id).end_status is not None:
                return False
            registration.register(
                connection, ref.task_id, [_publication(ExecutionKey(f"race-{next(_numbers)}"))], deadline_seconds=86400
            )
            return True

        barrier.wait(timeout=20)
        return recorder.write(work)

    def close(closer: Closer) -> Outcome:
        barrier.wait(timeout=20)
        return recorder.write(closer)

    with ThreadPoolExecutor(max_workers=2) as threads:
        for turn in range(_PAIRS):
            ref, (key,) = recorder.write(lambda connection: _new_task(connection, 1))
            started, closed = threads.submit(start, ref), threads.submit(close, success(ref, key))

            assert started.result(timeout=30) is (closed.result(timeout=30).ended is None), f"turn {turn}"


@pytest.mark.mariadb
@pytest.mark.databases("sqlite", "postgresql", "mariadb")
def test_execution_that_begins_while_its_publication_is_being_registered_is_running(
    taskstate: TaskState,
) -> None:
    ref, _ = taskstate.recorder.write(lambda connection: _new_task(connection, 1))
    key = ExecutionKey(f"race-{next(_numbers)}")
    runner = executions_begin.Runner(worker="w", host="h", pid=1, pid_started=None)

    with ThreadPoolExecutor(max_workers=1) as thread:
        with taskstate.database.transaction() as connection:
            registration.register(connection, ref.task_id, [_publication(key)], deadline_seconds=86400)
            begun = thread.submit(
                taskstate.recorder.write,
                lambda other: executions_begin.begin(other, ref, key, name="member", runner=runner),
            )
            # Long enough for the other to come to its INSERT, which waits for this transaction.
            time.sleep(0.4)
        found = begun.result(timeout=20)

    with taskstate.database.reading() as connection:
        query = select(execution_table.c.state).where(execution_table.c.celery_id == key.celery_id)
        assert (found.closed, connection.execute(query).scalar_one()) == (False, "RUNNING")


@pytest.mark.mariadb
@pytest.mark.databases("sqlite", "postgresql", "mariadb")
def test_loss_of_a_process_is_told_too_late_once_another_one_has_begun(taskstate: TaskState) -> None:
    recorder = taskstate.recorder
    ref, (key,) = recorder.write(lambda connection: _new_task(connection, 1))

    def begin(pid: int) -> None:
        runner = executions_begin.Runner(worker="w", host="h", pid=pid, pid_started=None)
        recorder.write(lambda connection: executions_begin.begin(connection, ref, key, name="member", runner=runner))

    def hand_back(pid: int) -> int | None:
        return recorder.write(
            lambda connection: losses.hand_back(connection, ref, key, deadline=now(), lost=True, process=("h", pid))
        )

    def state() -> tuple[str, int]:
        with taskstate.database.reading() as connection:
            query = select(execution_table.c.state, execution_table.c.losses)
            row = connection.execute(query.where(execution_table.c.celery_id == key.celery_id)).one()
        return row.state, row.losses

    begin(1)
    begin(2)
    assert (hand_back(1), state()) == (None, ("RUNNING", 0))
    assert (hand_back(2), state()) == (1, ("QUEUED", 1))
