"""What a host does with our rows in its own way."""

from __future__ import annotations

from typing import Any

import pytest
from celery import chain
from sqlalchemy import select

from qhana_taskstate import ProcessingTask, TaskState, TaskUpdateSubscription, WebhookRef, plugin_task, taskstate
from tests.apps.jobs import nothing


@plugin_task(name="hosts.set_progress")
def set_progress(value: float) -> None:
    """Write the progress on the row, as today's plugins do."""
    task = taskstate.current()
    task.progress_value, task.progress_target, task.progress_unit = value, 80, "%"


def _other(state: TaskState, task: ProcessingTask, log: str) -> None:
    with state.session_scope() as session:
        found = session.get_one(ProcessingTask, task.id)
        found.task_log += log
        session.commit()


@pytest.mark.parametrize("names", [["task_log"], ["task_log", "task_name"], None])
def test_log_can_be_refreshed_and_expired_by_name(queued: TaskState, names: Any) -> None:
    task = ProcessingTask("t", task_log="one")
    task.save(commit=True)
    _other(queued, task, "\ntwo")
    queued.session.refresh(task, names)
    assert task.task_log == "one\ntwo"
    _other(queued, task, "\nthree")
    queued.session.expire(task, names)
    assert task.task_log == "one\ntwo\nthree"
    assert queued.session.scalars(select(ProcessingTask.id).where(ProcessingTask.task_log.contains("one"))).all()


def test_each_webhook_is_given_once(queued: TaskState) -> None:
    task = ProcessingTask("t")
    for event in (None, "status", "status", "steps"):
        TaskUpdateSubscription(task, "http://a.example/", "http://t.example/", event)
    TaskUpdateSubscription(task, "http://b.example/", "http://t.example/", "status")
    task.save(commit=True)
    first, second = (
        WebhookRef("http://a.example/", "http://t.example/"),
        WebhookRef("http://b.example/", "http://t.example/"),
    )

    assert TaskUpdateSubscription.get_by_task_and_event(task, "status") == [first, second]
    assert TaskUpdateSubscription.get_by_task_and_event(task) == [first, second]
    assert TaskUpdateSubscription.get_by_task_and_event(task, "details") == [first]


def test_progress_that_a_plugin_wrote_on_the_row_is_not_that_of_the_canvas(eager: TaskState) -> None:
    task = eager.start(chain(set_progress.si(20), set_progress.si(60), nothing.si()), finishes=False)

    assert (task.progress_value, task.progress_target, task.progress_unit) == (60, 80, "%")
