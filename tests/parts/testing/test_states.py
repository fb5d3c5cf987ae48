"""The fixtures for authors of plugins: `taskstate`, a worker in a thread, a receiver, workers that are killed."""

from __future__ import annotations

import base64
import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from celery import chord
from celery.result import AsyncResult

from qhana_taskstate import NotConfiguredError, TaskState, registry
from qhana_taskstate import taskstate as process_state
from qhana_taskstate.settings.sources import read_settings
from qhana_taskstate.testing.plugin import KillWorker, StartWorker
from qhana_taskstate.testing.receiver import Reply, Told, WebhookReceiver
from qhana_taskstate.testing.waiting import wait_until
from qhana_taskstate.webhooks.http import message
from tests.apps.jobs import add, fail, say, total, wait_for_file

SECRET = "whsec_" + base64.b64encode(b"the secret of this receiver").decode()


class TestTaskState:
    def test_it_is_the_one_of_the_process_and_has_the_tables(self, taskstate: TaskState) -> None:
        assert process_state.database is taskstate.database
        assert say.start("hello").status == "PENDING"
        assert registry.find(taskstate.app) is taskstate

    @pytest.mark.databases("sqlite")
    def test_it_is_a_new_one_in_each_test(self, request: pytest.FixtureRequest) -> None:
        before = [entry.state for entry in registry._entries]
        state: TaskState = request.getfixturevalue("taskstate")
        assert state not in before

    def test_the_one_of_the_test_before_is_forgotten(self) -> None:
        assert all(entry.state.app.main != "tests" for entry in registry._entries)


@pytest.mark.databases("sqlite")
class TestSettings:
    @pytest.fixture
    def taskstate_settings(self, taskstate_settings: dict[str, Any]) -> dict[str, Any]:
        return taskstate_settings | {"error_status": "FAILURE", "webhook_allowed_networks": ["10.0.0.0/8", "a.example"]}

    def test_they_can_be_overridden_and_reach_workers(
        self, taskstate: TaskState, worker_environment: dict[str, str | None]
    ) -> None:
        assert taskstate.settings.error_status == "FAILURE"
        names = {name: value for name, value in worker_environment.items() if name.startswith("TASKSTATE_") and value}
        read = read_settings({}, {}, names)
        assert read == taskstate.settings


def test_what_looks_at_all_objects_of_a_process_does_not_fail_without_a_task_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "_entries", [])
    found: Any = process_state
    assert not isinstance(found, AsyncResult)
    with pytest.raises(NotConfiguredError):
        process_state.settings  # noqa: B018  (read for what it raises)


class TestWorkerInAThread:
    def test_it_runs_a_canvas_and_is_fast(self, taskstate: TaskState, taskstate_worker: object) -> None:
        task = taskstate.start(chord([add.s(1, 2), add.s(3)], total.s()))
        assert taskstate.wait(task.id, timeout=20).status == "SUCCESS"

    @pytest.mark.databases("sqlite")
    @pytest.mark.parametrize("turn", [1, 2])
    def test_each_test_has_one_of_its_own(self, taskstate: TaskState, taskstate_worker: object, turn: int) -> None:
        assert taskstate.wait(fail.start().id, timeout=20).status == "ERROR"
        assert taskstate.wait(say.start("hello").id, timeout=20).id == 2


@pytest.mark.databases("sqlite")
class TestReceiver:
    def test_it_is_told_what_the_worker_delivers_after_it_refused(
        self, taskstate: TaskState, taskstate_worker: object, webhook_receiver: WebhookReceiver
    ) -> None:
        webhook_receiver.answer_with(500, Reply(503))
        task = taskstate.start(say.s("hello"), webhook_href=webhook_receiver.href(), event="status")
        taskstate.wait(task.id, timeout=20)
        wait_until("it accepted the third call", lambda: len(webhook_receiver.told(event="status")) == 3)
        assert {call.status for call in webhook_receiver.calls} == {"SUCCESS"}
        assert len({call.message_id for call in webhook_receiver.calls}) == 1


def _call(receiver: WebhookReceiver, sequence: int, *, number: int | None = None, secret: str = SECRET) -> Reply:
    body = json.dumps({"data": {"sequence": sequence, "status": "PENDING"}}).encode()
    headers = message.headers(f"msg_{number or sequence}", datetime.now(UTC), body, [secret])
    return receiver.receive("/hook?source=a&event=details", {k.lower(): v for k, v in headers.items()}, body)


class TestChecks:
    def test_calls_in_order_are_right(self) -> None:
        with WebhookReceiver(secrets=[SECRET]) as receiver:
            assert [_call(receiver, number).status for number in (1, 2, 5)] == [204, 204, 204]
            receiver.check()

    def test_a_call_that_was_refused_may_come_again(self) -> None:
        with WebhookReceiver(secrets=[SECRET]) as receiver:
            receiver.answer_with(500, 429)
            assert [_call(receiver, 1).status for _ in range(3)] == [500, 429, 204]
            receiver.check()

    @pytest.mark.parametrize(
        ("kind", "told"), [("order", "details 1 of a came after 2"), ("duplicate", "details 2 of a came again")]
    )
    def test_what_is_wrong_is_named_and_can_be_tolerated(self, kind: str, told: str) -> None:
        with WebhookReceiver(secrets=[SECRET]) as receiver:
            for sequence in (2, 1) if kind == "order" else (2, 2):
                _call(receiver, sequence)
            with pytest.raises(AssertionError, match=told):
                receiver.check()
            assert list(receiver.faults()) == [kind]
            receiver.tolerated.add(kind)
            receiver.check()

    def test_a_wrong_signature_is_named(self) -> None:
        with WebhookReceiver(secrets=[SECRET]) as receiver:
            other = "whsec_" + base64.b64encode(b"the secret of somebody else").decode()
            assert _call(receiver, 1, secret=other).status == 401
            with pytest.raises(AssertionError, match="1 calls had no fitting signature"):
                receiver.check()

    def test_scripted_answers_come_before_the_usual_one(self) -> None:
        def refuse(told: Told) -> Reply:
            return Reply(410)

        with WebhookReceiver(refuse, secrets=[SECRET]) as receiver:
            receiver.answer_with(Reply(200, body=b"thanks"))
            assert [_call(receiver, number).status for number in (1, 2)] == [200, 410]


class TestKilledWorker:
    @pytest.mark.databases("sqlite")
    def test_its_task_ends_as_error_soon(
        self,
        taskstate: TaskState,
        start_worker: StartWorker,
        kill_worker: KillWorker,
        tmp_path: Any,
    ) -> None:
        worker = start_worker("tests.apps.worker:app", concurrency=1)
        task = taskstate.start(wait_for_file.s(str(tmp_path / "never")), queue="jobs")
        wait_until("it runs", lambda: taskstate.describe(task.id)["activity"]["word"] == "running")
        began = time.monotonic()
        kill_worker()
        task = taskstate.wait(task.id, timeout=30)
        assert (task.status, worker.tree_pids()) == ("ERROR", [])
        assert worker.node_name in task.task_log
        assert time.monotonic() - began < 15

    def test_without_a_worker_it_says_so(self, kill_worker: KillWorker) -> None:
        with pytest.raises(LookupError, match="start_worker"):
            kill_worker()


def test_nodes_are_containers_where_these_are_asked_for(pytester: pytest.Pytester) -> None:
    pytester.makeconftest('pytest_plugins = ["qhana_taskstate.testing.plugin"]')
    pytester.makepyfile(
        """
        def test_it(request, default_redis_broker_cls, default_worker_container_cls):
            where = request.config.getoption("--taskstate-nodes")
            home = "pytest_celery" if where == "docker" else "qhana_taskstate"
            assert default_redis_broker_cls.__module__.startswith(home)
            assert default_worker_container_cls.__module__.startswith(home)
        """
    )
    for where in ("docker", "local"):
        pytester.runpytest_inprocess(f"--taskstate-nodes={where}").assert_outcomes(passed=1)
