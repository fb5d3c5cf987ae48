"""Settings for hosts whose tasks end by a status that is set, and which tell subscribers themselves."""

from __future__ import annotations

from typing import Any

import pytest
from celery import chain, shared_task
from sqlalchemy import func, select

from qhana_taskstate import ProcessingTask, TaskState, TaskUpdateSubscription
from qhana_taskstate.database.tables.deliveries import change_table, delivery_table
from tests.apps.jobs import fail, say, with_id
from tests.contract.conftest import MakeState

pytestmark = pytest.mark.versions


@shared_task(name="runner_ways.end")
def end(task_log: str | None, db_id: int, status: str = "SUCCESS") -> None:
    """End a task by hand."""
    task = ProcessingTask.get_by_id(db_id)
    assert task is not None
    task.task_status = status
    task.save(commit=True)


@shared_task(name="runner_ways.break_off")
def break_off(db_id: int) -> None:
    """Fail."""
    raise LookupError(f"of {db_id}")


@pytest.fixture
def open_ended(make_state: MakeState) -> TaskState:
    """Tracks all tasks, and leaves those open that are named by `db_id`."""
    return make_state(eager=True, track="all", db_id_finishes=False)


def _new_task() -> ProcessingTask:
    task = ProcessingTask("by hand")
    task.save(commit=True)
    return task


def _status(task: ProcessingTask) -> str:
    found = ProcessingTask.get_by_id(task.id)
    assert found is not None
    return found.status


def test_work_by_db_id_leaves_its_task_open_until_a_status_is_set(open_ended: TaskState) -> None:
    task = _new_task()
    with_id.apply_async(kwargs={"text": "t", "db_id": task.id})
    assert _status(task) == "PENDING"

    end.apply_async((None,), {"db_id": task.id})
    assert _status(task) == "SUCCESS"

    end.apply_async((None,), {"db_id": task.id, "status": "FAILURE"})
    assert _status(task) == "SUCCESS"


def test_chain_by_db_id_ends_by_its_last_member(open_ended: TaskState) -> None:
    task = _new_task()
    canvas: Any = chain(with_id.s("t", db_id=task.id), end.s(db_id=task.id))
    canvas.apply_async()
    assert _status(task) == "SUCCESS"


def test_failure_ends_a_task_that_is_left_open(open_ended: TaskState) -> None:
    task = _new_task()
    with_id.apply_async(kwargs={"text": "t", "db_id": task.id})
    break_off.apply_async(kwargs={"db_id": task.id})

    assert _status(task) == "ERROR"
    assert f"of {task.id}" in task.task_log and "LookupError" in task.task_log


def test_work_without_db_id_ends_by_itself(open_ended: TaskState) -> None:
    found = open_ended.find(say.delay("x").id)
    assert found is not None and found.status == "SUCCESS"
    assert open_ended.start(say.s("x")).status == "SUCCESS"


def test_work_by_db_id_ends_its_task_by_default(eager: TaskState) -> None:
    task = _new_task()
    with_id.apply_async(kwargs={"text": "t", "db_id": task.id})
    assert _status(task) == "SUCCESS"


@pytest.mark.parametrize("webhooks", [True, False])
def test_subscribers_are_owed_nothing_where_the_host_tells_them(make_state: MakeState, webhooks: bool) -> None:
    # Nobody listens there, and no worker runs.
    state = make_state(webhooks=webhooks, webhook_allowed_networks=["127.0.0.0/8"])
    task = _new_task()
    state.session.add(TaskUpdateSubscription(task, webhook_href="http://127.0.0.1:9/", task_href="http://t/1"))
    state.session.commit()
    task.add_task_log_entry("a line", commit=True)
    state.finish(task, status="ERROR")
    state.subscribe(task, "http://127.0.0.1:9/late", task_href="http://t/1")

    with state.database.reading() as connection:
        owed = sum(
            connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in (change_table, delivery_table)
        )
    assert (owed > 0) is webhooks
    if not webhooks:
        assert state.deliverer.run() == 0


def test_failed_start_is_not_left_open(make_state: MakeState) -> None:
    state = make_state(eager=True, db_id_finishes=False)
    assert state.start(fail.s()).status == "ERROR"
