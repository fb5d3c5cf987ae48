"""What is told although messages, brokers and workers are lost; and how messages of our own travel."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import select

from qhana_taskstate import TaskState
from qhana_taskstate.context.header import HEADER
from qhana_taskstate.database.tables.executions import execution_table
from qhana_taskstate.testing.plugin import StartWorker
from qhana_taskstate.testing.receiver import Reply, Told, WebhookReceiver
from qhana_taskstate.testing.redis_server import RedisServer
from qhana_taskstate.testing.server import free_port
from qhana_taskstate.webhooks.waking import wake_message
from tests import warm
from tests.apps.factory import make_app
from tests.apps.jobs import half_way, say, spawn
from tests.parts.webhooks.conftest import SECRET, SOON, MakeState
from tests.parts.webhooks.owed import TASK, saved_task, subscribed_task
from tests.parts.webhooks.telling import change
from tests.waiting import wait_until

#: Silence is looked into so soon, and so does upkeep look for what is owed.
WATCHFUL = {"TASKSTATE_HEARTBEAT_SECONDS": "1", "TASKSTATE_LOST_AFTER_SECONDS": "6"}

#: The app of the workers.
APP = "tests.apps.webhooks:app"

MakeClient = Callable[..., TaskState]


@pytest.fixture
def make_client(migrated_database_url: str) -> Iterator[MakeClient]:
    """Make the client's side of a deployment."""
    made: list[TaskState] = []

    def make(broker_url: str, **settings: Any) -> TaskState:
        app, state = make_app(broker_url, None, migrated_database_url, **{**SOON, **settings})
        app.set_current()
        made.append(state)
        return state

    yield make
    for state in made:
        state.close()
        state.app.close()


# How messages travel


def _queued(broker_url: str, queue: str) -> int:
    with redis.Redis.from_url(broker_url) as client:
        return int(client.llen(queue))


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("queue", [None, "hooks"])
def test_messages_go_to_the_queue_of_the_setting_and_belong_to_no_task(
    make_client: MakeClient, broker_url: str, queue: str | None
) -> None:
    client = make_client(broker_url, webhook_queue=queue)
    task = subscribed_task(client)
    seen: list[dict[str, Any]] = []
    with client.app.connection_for_read() as connection:
        consumer = connection.SimpleQueue(queue or "jobs")
        task.progress_value = 4
        client.session.commit()
        message = consumer.get(timeout=10)
        seen.append(dict(message.headers))
        message.ack()
        consumer.close()
    assert seen[0]["task"] == wake_message.TASK_NAME
    assert seen[0].get(HEADER) is None
    assert seen[0]["expires"] is not None
    other = "jobs" if queue else "hooks"
    assert _queued(broker_url, other) == 0


@pytest.mark.databases("sqlite")
def test_many_commits_send_few_messages(make_client: MakeClient, broker_url: str) -> None:
    client = make_client(broker_url)
    task = subscribed_task(client)
    for value in range(200):
        task.progress_value = value
        client.session.commit()
    wait_until("a message was sent", lambda: _queued(broker_url, "jobs"))
    assert _queued(broker_url, "jobs") <= 2


def _teller(worker_environment: dict[str, str | None], *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **worker_environment}
    return warm.run(
        [sys.executable, "-m", "tests.apps.teller", *map(str, arguments)],
        env={key: value for key, value in environment.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.databases("sqlite", "postgresql")
def test_process_that_ends_after_its_commit_has_sent_the_message(
    make_client: MakeClient, broker_url: str, worker_environment: dict[str, str | None]
) -> None:
    client = make_client("memory://")
    task = subscribed_task(client)
    client.session.close()
    ended = _teller(worker_environment, "exit", task.id)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert _queued(broker_url, "jobs") == 1


@pytest.mark.databases("sqlite", "postgresql")
def test_forked_child_tells_and_wakes_by_itself(
    make_client: MakeClient,
    broker_url: str,
    worker_environment: dict[str, str | None],
    receiver: WebhookReceiver,
) -> None:
    client = make_client("memory://")
    task = subscribed_task(client, webhook_href=receiver.href(), event="details")
    client.session.close()
    ended = _teller(worker_environment, "fork", task.id)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert len(receiver.calls) == 3
    assert [call.sequence for call in receiver.calls] == [1, 2, 3]
    # The parent's deliverer had taken the first one's wake-up, so the child's commit needed one of its own.
    assert _queued(broker_url, "jobs") >= 2


# Eager


@pytest.mark.mariadb
def test_eager_app_tells_right_after_the_commit(make_state: MakeState, receiver: WebhookReceiver) -> None:
    state = make_state(eager=True, webhook_min_interval_seconds=0)
    task = subscribed_task(state, webhook_href=receiver.href())
    task.progress_value = 3
    state.session.commit()
    assert [call.event for call in receiver.calls] == ["details"]
    state.start(say.s("done"), task=task)
    wait_until("the end was told", lambda: receiver.told(event="status"))
    assert receiver.told(event="status")[0].status == "SUCCESS"
    state.cancel(task)
    other = state.start(half_way.s(), webhook_href=receiver.href("/other"), task_href=TASK)
    assert other.is_ok
    assert receiver.told(path="/other", event="status")


@pytest.mark.databases("sqlite")
def test_eager_receiver_that_fails_is_no_fault_of_the_commit(make_state: MakeState, receiver: WebhookReceiver) -> None:
    state = make_state(eager=True, webhook_retry_schedule=[1000.0])
    receiver.answer = lambda told: Reply(500)
    task = state.start(say.s(), webhook_href=receiver.href(), task_href=TASK)
    assert task.is_ok
    assert {call.event for call in receiver.calls} == {"status", "details"}


# Brokers


@pytest.mark.databases("sqlite", "postgresql")
@pytest.mark.parametrize("silent", [False, True])
def test_commit_does_not_wait_for_a_broker_that_is_away(make_client: MakeClient, silent: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = make_client(f"redis://127.0.0.1:{listening.getsockname()[1] if silent else free_port()}/0")
        task = subscribed_task(client)
        spent = []
        for value in range(5):
            began = time.monotonic()
            task.progress_value = value
            client.session.commit()
            spent.append(time.monotonic() - began)
            # So that each commit finds a wake-up under way.
            time.sleep(0.2)
    # Whoever waited for the broker would wait for a second each time.
    assert sorted(spent)[2] < 0.5


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("silent", [False, True])
def test_parent_of_a_pool_waits_only_a_moment_for_a_broker_that_is_away(make_client: MakeClient, silent: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1] if silent else free_port()
        client = make_client(f"redis://127.0.0.1:{port}/0")
        client.recorder.parent_pid = os.getpid()
        task = subscribed_task(client)
        began = time.monotonic()
        task.progress_value = 3
        client.session.commit()
        assert time.monotonic() - began < 2.5


@pytest.mark.slow
@pytest.mark.databases("postgresql")
def test_change_committed_while_the_broker_was_down_and_came_back_empty_is_told(
    make_client: MakeClient,
    start_worker: StartWorker,
    worker_environment: dict[str, str | None],
    receiver: WebhookReceiver,
) -> None:
    with RedisServer() as broker:
        worker_environment["CELERY_BROKER_URL"] = broker.url
        worker_environment["CELERY_RESULT_BACKEND"] = None
        client = make_client(broker.url)
        task = subscribed_task(client, webhook_href=receiver.href(), event="details")
        start_worker(APP, env=WATCHFUL)
        broker.stop()
        task.progress_value = 3
        began = time.monotonic()
        client.session.commit()
        assert time.monotonic() - began < 0.5
        time.sleep(1)
        broker.restart(keep_data=False)
        wait_until("upkeep woke the deliveries", lambda: receiver.calls, timeout=60)


@pytest.mark.slow
@pytest.mark.databases("postgresql")
def test_lost_message_is_sent_again_by_upkeep(
    make_client: MakeClient, start_worker: StartWorker, receiver: WebhookReceiver
) -> None:
    # What this client sends is lost.
    client = make_client("memory://")
    task = subscribed_task(client, webhook_href=receiver.href(), event="details")
    start_worker(APP, env=WATCHFUL)
    task.progress_value = 3
    client.session.commit()
    wait_until("upkeep woke the deliveries", lambda: receiver.calls, timeout=40)


@pytest.mark.databases("postgresql")
def test_change_whose_message_expired_before_a_worker_was_there_is_told(
    make_client: MakeClient,
    broker_url: str,
    start_worker: StartWorker,
    receiver: WebhookReceiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wake_message, "_EXPIRES_SECONDS", 0.5)
    client = make_client(broker_url)
    task = subscribed_task(client, webhook_href=receiver.href(), event="details")
    task.progress_value = 3
    client.session.commit()
    wait_until("the message was sent", lambda: _queued(broker_url, "jobs"))
    time.sleep(1)
    start_worker(APP, env=WATCHFUL)
    wait_until("upkeep woke the deliveries", lambda: receiver.calls, timeout=40)


# Workers


@pytest.mark.slow
@pytest.mark.databases("postgresql")
def test_call_of_a_killed_worker_is_made_again_with_the_same_id(
    make_client: MakeClient, broker_url: str, start_worker: StartWorker, receiver: WebhookReceiver
) -> None:
    released = threading.Event()

    def answer(told: Told) -> Reply:
        if told.number == 0:
            released.wait(30)
        return Reply()

    receiver.answer = answer
    client = make_client(broker_url)
    task = subscribed_task(client, webhook_href=receiver.href(), event="details")
    doomed = start_worker(APP, env=WATCHFUL)
    task.progress_value = 3
    client.session.commit()
    wait_until("the call is under way", lambda: receiver.calls)
    doomed.kill()
    start_worker(APP, env=WATCHFUL)
    wait_until("it is made again", lambda: len(receiver.calls) == 2, timeout=60)
    released.set()
    assert len({(call.message_id, call.sequence) for call in receiver.calls}) == 1


@pytest.mark.databases("postgresql")
@pytest.mark.parametrize("pool", ["gevent", "threads", "solo"])
def test_every_pool_tells(
    make_client: MakeClient, broker_url: str, start_worker: StartWorker, receiver: WebhookReceiver, pool: str
) -> None:
    client = make_client(broker_url)
    start_worker(APP, pool=pool, concurrency=4)
    task = client.start(spawn.s(), webhook_href=receiver.href(), task_href=TASK)
    other = client.start(half_way.s(60), webhook_href=receiver.href("/other"), task_href=TASK)
    client.wait(task, timeout=30)
    client.wait(other, timeout=30)
    for path in ("/hook", "/other"):
        wait_until("the end was told", lambda path=path: receiver.told(path=path, event="status"))  # type: ignore[misc]
    with client.database.reading() as connection:
        names = set(connection.execute(select(execution_table.c.name)).scalars())
    assert names == {"tests.apps.jobs.spawn", "tests.apps.jobs.add", "tests.apps.jobs.half_way"}


@pytest.mark.databases("sqlite", "postgresql")
def test_hanging_receiver_with_many_subscriptions_delays_no_other(
    make_client: MakeClient, broker_url: str, start_worker: StartWorker, receiver: WebhookReceiver, tmp_path: Path
) -> None:
    over = threading.Event()
    client = make_client(broker_url)
    task = saved_task(client)
    numbers = count(1)
    with WebhookReceiver(secrets=[SECRET], answer=lambda told: Reply(204 if over.wait(20) else 500)) as hanging:
        for number in range(20):
            client.subscribe(task, hanging.href(f"/{number}"), TASK)
        client.subscribe(task, receiver.href(), TASK, event="steps")
        start_worker(APP, pool="prefork", concurrency=2)
        change(client, task.id, "details", "status")
        wait_until("the hanging one is called", lambda: len(hanging.calls) >= 4)
        for _ in range(8):
            expected = next(numbers)
            began = time.monotonic()
            change(client, task.id, "steps")
            wait_until("the other one was told", lambda expected=expected: len(receiver.calls) >= expected)  # type: ignore[misc]
            assert time.monotonic() - began < 2.5
        over.set()
