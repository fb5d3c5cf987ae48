"""The plain Celery way: `db_id`, a task of its own, tokens, `detached` and `bound`."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest
from celery import group

from qhana_taskstate import NotInExecutionError, ProcessingTask, TaskState, plugin_task, taskstate
from qhana_taskstate.context.header import HEADER
from tests.apps.jobs import add, remember, say, with_id
from tests.contract.conftest import count_rows

pytestmark = pytest.mark.versions


@plugin_task(name="contract.send")
def send(how: str) -> str:
    """Publish another plugin task."""
    seen: list[str] = []

    def publish() -> None:
        taskstate.app.set_current()
        seen.append(str(say.delay("sent").id))

    if how == "detached":
        with taskstate.detached():
            publish()
    elif how == "raw thread":
        _in_thread(publish)
    else:
        _in_thread(taskstate.bound(publish))
    return seen[0]


def _in_thread(work: Any) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


@pytest.mark.parametrize("text", [False, True], ids=["int", "text"])
def test_db_id_names_the_task(eager: TaskState, text: bool) -> None:
    task = ProcessingTask("by hand")
    task.save(commit=True)

    result = with_id.apply_async(kwargs={"text": "t", "db_id": str(task.id) if text else task.id})

    found = eager.find(result.id)
    assert found is not None
    assert (found.id, found.status, found.task_log) == (task.id, "SUCCESS", f"t {task.id}")


@pytest.mark.parametrize("db_id", ["x", "1.0", "", [1], 1.5])
def test_db_id_that_is_no_id_is_not_tracked_and_told(
    eager: TaskState, db_id: Any, caplog: pytest.LogCaptureFixture
) -> None:
    before = count_rows(eager)
    assert with_id.apply_async(kwargs={"text": "t", "db_id": db_id}).get() == f"t {db_id}"
    assert count_rows(eager) == before
    assert "db_id" in caplog.text


@pytest.mark.parametrize("db_id", [99999, -5, 0], ids=repr)
def test_db_id_of_no_task_leaves_no_rows(eager: TaskState, db_id: int) -> None:
    before = count_rows(eager)
    with_id.apply_async(kwargs={"text": "t", "db_id": db_id})
    assert count_rows(eager) == before


@pytest.mark.databases("sqlite")
def test_task_that_gets_an_id_which_a_message_named_before_can_be_started(eager: TaskState) -> None:
    with_id.apply_async(kwargs={"text": "t", "db_id": 1})
    task = ProcessingTask("new")
    task.save(commit=True)

    assert eager.start(say.s("x"), task=task).task_log == "x"


def test_group_sent_plainly_is_one_job_for_each_member(queued: TaskState) -> None:
    result: Any = group(say.s("a"), say.s("b"), say.s("c")).apply_async()

    tasks = [queued.find(member.id) for member in result.children]
    assert len({task.id for task in tasks if task is not None}) == 3


def test_task_that_is_no_plugin_task_is_not_tracked(queued: TaskState) -> None:
    before = count_rows(queued)
    assert queued.find(add.delay(1, 2).id) is None
    assert count_rows(queued) == before


def test_send_task_by_name_is_tracked(queued: TaskState) -> None:
    task = queued.find(queued.app.send_task("tests.apps.jobs.say", ["x"]).id)
    assert task is not None
    assert task.task_name == "tests.apps.jobs.say"


def test_token_that_does_not_match_is_not_tracked_and_told_once(
    eager: TaskState, caplog: pytest.LogCaptureFixture
) -> None:
    task = eager.start(say.s("mine"), finishes=False)
    before = count_rows(eager)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            say.apply(args=["theirs"], headers={HEADER: f"{task.id}:0123456789abcdef"})

    assert count_rows(eager) == before
    assert caplog.text.count("token") == 1


def test_task_of_another_token_is_out_of_reach(eager: TaskState) -> None:
    task = eager.start(say.s("mine"), finishes=False)

    remember.apply(args=["key", "theirs"], headers={HEADER: f"{task.id}:0123456789abcdef"})

    row = ProcessingTask.get_by_id(task.id)
    assert row is not None
    assert (row.data, row.task_log) == ({}, "mine")


@pytest.mark.parametrize(("how", "own"), [("detached", True), ("raw thread", True), ("bound", False)])
def test_what_an_execution_publishes_belongs_to_its_task(eager: TaskState, how: str, own: bool) -> None:
    task = eager.start(send.s(how))

    published = eager.find(task.task_log.splitlines()[-1])
    assert published is not None
    assert (published.id != task.id) is own


def test_detached_and_bound_outside_of_an_execution(queued: TaskState) -> None:
    with queued.detached():
        assert queued.find(say.delay().id) is None
    assert queued.bound(lambda value: value + 1)(1) == 2
    with pytest.raises(NotInExecutionError):
        queued.current()
