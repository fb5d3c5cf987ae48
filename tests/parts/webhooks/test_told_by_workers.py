"""What subscribers hear of tasks that real workers run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import chain, chord

from qhana_taskstate import TaskState
from qhana_taskstate.testing.plugin import StartWorker
from qhana_taskstate.testing.receiver import WebhookReceiver
from tests.apps.factory import make_app
from tests.apps.jobs import add, ask, fail, half_way, say, total
from tests.parts.webhooks.conftest import SECRET, SOON
from tests.waiting import wait_until

pytestmark = pytest.mark.versions

TASK = "https://plugin.example/tasks/7/?a=b"


@pytest.fixture
def site(
    migrated_database_url: str, broker_url: str, result_backend_url: str, start_worker: StartWorker
) -> Iterator[TaskState]:
    """A worker, and the client's side of its deployment."""
    app, state = make_app(broker_url, result_backend_url, migrated_database_url, **SOON)
    app.set_current()
    start_worker("tests.apps.webhooks:app", concurrency=2)
    yield state
    state.close()
    app.close()


def test_subscriber_of_everything_hears_of_the_end(site: TaskState, receiver: WebhookReceiver) -> None:
    task = site.start(say.s("done"), webhook_href=receiver.href("/hook?step=3"), task_href=TASK)
    site.wait(task.id, timeout=30)

    wait_until("the end was told", lambda: receiver.told(event="status"), timeout=10)
    wait_until("the details were told", lambda: receiver.told(event="details"), timeout=10)
    (told,) = receiver.told(event="status")
    assert (told.path, told.query) == ("/hook", {"step": "3", "source": TASK, "event": "status"})
    assert told.message["type"] == "qhana.task.status"
    assert told.message["data"] == {
        "task_id": task.id,
        "source": TASK,
        "event": "status",
        "sequence": 1,
        "status": "SUCCESS",
    }
    assert receiver.told(event="steps") == []


def test_failure_is_told_with_the_word_of_the_wire(site: TaskState, receiver: WebhookReceiver) -> None:
    task = site.start(fail.s(), webhook_href=receiver.href(), task_href=TASK, event="status")
    site.wait(task.id, timeout=30)

    (told,) = wait_until("the end was told", lambda: receiver.told(event="status"), timeout=10)
    assert told.status == "FAILURE"
    assert "Traceback" not in json.dumps(told.message)
    assert {call.event for call in receiver.calls} == {"status"}


def test_step_and_its_answer_are_told(site: TaskState, receiver: WebhookReceiver) -> None:
    task = site.start(ask.s("k"), webhook_href=receiver.href(), task_href=TASK, event="steps")
    site.wait(task.id, timeout=30, or_step=True)
    wait_until("the step was told", lambda: len(receiver.told(event="steps")) == 1, timeout=10)

    site.start(say.s("answered"), task=task.id, answers="k")
    wait_until("the answer was told", lambda: len(receiver.told(event="steps")) == 2, timeout=10)
    site.wait(task.id, timeout=30)
    assert [call.sequence for call in receiver.calls] == [1, 2]


def test_progress_is_told_while_the_task_runs(site: TaskState, receiver: WebhookReceiver) -> None:
    task = site.start(half_way.s(60, pause=3), webhook_href=receiver.href(), task_href=TASK, event="details")

    (told, *_) = wait_until("the progress was told", lambda: receiver.told(event="details"), timeout=2.5)
    assert told.status == "PENDING"
    site.wait(task.id, timeout=30)


def test_end_of_a_canvas_is_told_once(site: TaskState, receiver: WebhookReceiver) -> None:
    canvas = chain(chord([add.s(i, i) for i in range(6)], total.s()), say.si("all"))
    task = site.start(canvas, webhook_href=receiver.href(), task_href=TASK, event="status")
    site.wait(task.id, timeout=30)

    (told,) = wait_until("the end was told", lambda: receiver.told(event="status"), timeout=10)
    assert told.sequence == 1


def test_finished_task_owes_a_new_subscriber_one_status(site: TaskState, receiver: WebhookReceiver) -> None:
    task = site.start(say.s("done"))
    site.wait(task.id, timeout=30)

    site.subscribe(task, receiver.href(), TASK)
    site.subscribe(task, receiver.href(), TASK)

    wait_until("the end was told", lambda: receiver.told(), timeout=10)
    assert [(call.event, call.status) for call in receiver.calls] == [("status", "SUCCESS")]


def test_unsubscribed_webhook_hears_nothing_more(site: TaskState, receiver: WebhookReceiver, tmp_path: Path) -> None:
    task = site.start(ask.s("k"), webhook_href=receiver.href(), task_href=TASK)
    wait_until("the step was told", lambda: receiver.told(event="steps"), timeout=20)
    assert site.unsubscribe(task, receiver.href()) == 1
    heard = len(receiver.calls)
    with WebhookReceiver(secrets=[SECRET]) as other:
        site.subscribe(task, other.href(), TASK)
        site.start(say.s("answered"), task=task.id, answers="k")
        wait_until("the other one heard of the end", lambda: other.told(event="status"), timeout=20)
    assert len(receiver.calls) == heard
