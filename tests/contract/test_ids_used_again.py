"""A Celery id that is used again: new work is told from a message that is delivered again."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from celery import group
from sqlalchemy import select

from qhana_taskstate import ArgumentsError, TaskState, plugin_task
from qhana_taskstate.context.header import HEADER
from qhana_taskstate.database.tables.base import ID_LENGTH
from qhana_taskstate.database.tables.executions import execution_table
from qhana_taskstate.states import TaskStatus
from qhana_taskstate.store.executions.celery_ids import column_id
from qhana_taskstate.store.task_end import from_outside
from qhana_taskstate.testing.plugin import StartWorker
from tests.apps.jobs import say, wait_for_file
from tests.contract.conftest import MakeState
from tests.waiting import wait_until

ID = "nightly"


@plugin_task(name="contract.sends_parts")
def sends_parts(parts: int) -> None:
    """Send several messages with one id of its own choice."""
    for part in range(parts):
        say.apply_async((f"part {part}",), task_id="part")


def executions(state: TaskState, celery_id: str = ID) -> list[tuple[int, int, str]]:
    """Task, nesting and state of the executions with a Celery id, oldest first."""
    columns = execution_table.c
    with state.database.reading() as connection:
        rows = connection.execute(
            select(columns.task_id, columns.nesting, columns.state)
            .where(columns.celery_id == celery_id)
            .order_by(columns.task_id, columns.nesting)
        )
        return [(row.task_id, row.nesting, row.state) for row in rows]


def found(state: TaskState, celery_id: str = ID) -> int:
    task = state.find(celery_id)
    assert task is not None
    return int(task.id)


def end(state: TaskState, task_id: int) -> None:
    state.recorder.write(lambda connection: from_outside.end(connection, task_id, TaskStatus.SUCCESS))


def test_new_message_with_the_id_of_an_ended_task_is_a_new_job(queued: TaskState) -> None:
    ids = []
    for number in range(3):
        say.apply_async((f"{number}",), task_id=ID)
        ids.append(found(queued))
        end(queued, ids[-1])

    assert len(set(ids)) == 3
    assert found(queued) == ids[-1]


def test_new_message_with_the_id_of_an_open_task_belongs_to_it_and_is_told(
    queued: TaskState, caplog: pytest.LogCaptureFixture
) -> None:
    say.apply_async(("first",), task_id=ID)
    task_id = found(queued)
    with caplog.at_level(logging.WARNING):
        queued.app.send_task(say.name, ["second"], task_id=ID)

    assert executions(queued) == [(task_id, 0, "QUEUED"), (task_id, 1, "QUEUED")]
    assert f"{ID!r} of task {task_id}" in caplog.text


def test_two_first_messages_with_one_id_at_the_same_moment_are_both_known(queued: TaskState) -> None:
    both_ready = threading.Barrier(2)

    def publish(word: str) -> None:
        both_ready.wait(10)
        say.apply_async((word,), task_id=ID)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(publish, ("one", "other")))

    rows = executions(queued)
    # Of one task, if one of them came first; else of two.
    assert len(rows) == len(set(rows)) == 2
    assert found(queued) in {task_id for task_id, _, _ in rows}


def test_id_used_again_by_start_is_a_new_job_that_find_gives(queued: TaskState) -> None:
    first = queued.start(say.s("a"), task_id=ID)
    second = queued.start(say.s("b"), task_id=ID)

    assert first.id != second.id
    assert found(queued) == second.id


def test_find_gives_the_task_of_the_newest_message(queued: TaskState) -> None:
    older = queued.start(say.s("a"), finishes=False)
    newer = queued.start(say.s("b"), task_id=ID)
    assert found(queued) == newer.id

    queued.start(say.s("c"), task=older, task_id=ID)

    assert found(queued) == older.id


def test_eager_call_with_an_id_used_before_is_a_new_job(eager: TaskState) -> None:
    say.apply_async(("a",), task_id=ID)
    first = found(eager)
    say.apply_async(("b",), task_id=ID)
    second = eager.find(ID)

    assert second is not None
    assert second.id != first
    assert second.task_log == "b"


def _is_log_of(state: TaskState, celery_id: str, log: str) -> bool:
    task = state.find(celery_id)
    return task is not None and task.is_finished and task.task_log == log


@pytest.mark.parametrize(
    "celery_id", ["x" * (ID_LENGTH + 1), "", "a\0b", "a\ud800"], ids=["long", "empty", "nul", "half"]
)
@pytest.mark.parametrize("kind", ["apply_async", "position", "group", "start"])
def test_id_that_no_column_holds_is_refused_for_plugin_tasks(queued: TaskState, celery_id: str, kind: str) -> None:
    if kind == "group" and not celery_id:
        pytest.skip("Celery gives one of its own then")
    with pytest.raises(ArgumentsError, match="task_id"):
        if kind == "apply_async":
            say.apply_async(("x",), task_id=celery_id)
        elif kind == "position":
            say.apply_async(("x",), None, celery_id)  # type: ignore[call-arg]  # Celery's third argument
        elif kind == "group":
            group(say.s("x").set(task_id=celery_id)).apply_async()
        else:
            queued.start(say.s("x"), task_id=celery_id)
    assert queued.find(celery_id) is None


def test_long_id_of_a_message_that_is_not_checked_is_held_in_part(queued: TaskState) -> None:
    long, other = "x" * 400, "x" * 401

    tasks = [queued.app.send_task(say.name, ["x"], task_id=celery_id) for celery_id in (long, other)]

    assert found(queued, long) != found(queued, other)
    assert [task.id for task in tasks] == [long, other]
    # Nobody could find it in a queue.
    with queued.database.reading() as connection:
        query = select(execution_table.c.queue).where(execution_table.c.celery_id == column_id(long))
        assert connection.execute(query).scalar_one() is None


def test_worker_runs_each_new_message_with_an_id_used_before(
    make_state: MakeState, start_worker: StartWorker, broker_url: str, tmp_path: Any
) -> None:
    state = make_state(broker=broker_url)
    start_worker("tests.apps.worker:app", args=["-I", "tests.contract.test_ids_used_again"])

    logs, ids = [], []
    for number in range(3):
        say.apply_async((f"number {number}",), task_id=ID)
        task = state.wait(found(state), timeout=30)
        ids.append(task.id)
        logs.append(task.task_log)
    assert len(set(ids)) == 3
    assert logs == ["number 0", "number 1", "number 2"]

    # Sent again while it is open: both run, and the task ends after both.
    go = tmp_path / "go"
    wait_for_file.apply_async((str(go),), task_id="open")
    task_id = found(state, "open")
    wait_until("it runs", lambda: executions(state, "open") == [(task_id, 0, "RUNNING")])
    add_id = say.apply_async(("beside",), task_id="open").id
    assert add_id == "open"
    wait_until("the second one ran", lambda: (task_id, 1, "SUCCESS") in executions(state, "open"))
    go.touch()
    assert state.wait(task_id, timeout=30).task_log == "beside\nwent on"

    # Sent several times by one run.
    task = state.wait(sends_parts.start(3).id, timeout=30)
    assert sorted(task.task_log.splitlines()) == ["part 0", "part 1", "part 2"]

    # A message from a program without this package, as long as the broker does not say that it delivers it again.
    for text in ("foreign 0", "foreign 1"):
        with state.app.producer_or_acquire() as producer:
            message = state.app.amqp.as_task_v2("foreign", say.name, (text,), {})
            assert HEADER not in message.headers
            producer.publish(message.body, routing_key="jobs", headers=message.headers, serializer="json")
        wait_until("it ran", partial(_is_log_of, state, "foreign", text), timeout=30)
