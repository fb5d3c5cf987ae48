"""The wire as a QHAna client sees it: subscribe, be told, fetch, until it has finished; and as strangers try it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from werkzeug.serving import make_server

from qhana_taskstate import ProcessingTask, TaskState
from qhana_taskstate.testing import wait_until
from qhana_taskstate.testing.plugin import StartWorker
from qhana_taskstate.testing.receiver import WebhookReceiver
from qhana_taskstate.web.serving.application import create_app
from tests.apps import jobs
from tests.apps.factory import close_state, make_app

#: How hard each operation is tried.
EXAMPLES = settings(max_examples=15, deadline=None, database=None, suppress_health_check=list(HealthCheck))

pytestmark = pytest.mark.databases("sqlite")


@pytest.fixture
def served(migrated_database_url: str, broker_url: str, tmp_path: Path) -> Iterator[tuple[TaskState, str]]:
    """A `TaskState` and the address of its server."""
    app, state = make_app(
        broker_url, None, migrated_database_url, webhook_allowed_networks=["127.0.0.1"], web_files_root=str(tmp_path)
    )
    app.set_current()
    server = make_server("127.0.0.1", 0, create_app(state), threaded=True)
    server.daemon_threads = True  # type: ignore[attr-defined]  # of the threaded server that this is
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield state, f"http://127.0.0.1:{server.port}"
    server.shutdown()
    server.server_close()
    thread.join()
    close_state(state)


def test_a_client_subscribes_is_told_and_fetches_until_it_has_finished(
    served: tuple[TaskState, str], start_worker: StartWorker, tmp_path: Path
) -> None:
    state, href = served
    start_worker("tests.apps.webhooks", env={"TASKSTATE_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.1"})
    task = ProcessingTask("asked")
    task.save(commit=True)
    url = f"{href}/tasks/{task.id}/"
    with WebhookReceiver() as receiver:
        (subscribe,) = [link for link in requests.get(url, timeout=10).json()["links"] if link["type"] == "subscribe"]
        told = {"command": "subscribe", "webhookHref": receiver.href()}
        assert requests.post(subscribe["href"], json=told, timeout=10).status_code == 200

        state.start(jobs.write_file.s(str(tmp_path)), task=task)
        wait_until("the end was told", lambda: receiver.told(event="status", source=url), timeout=60)

        result = requests.get(url, timeout=10).json()
        assert result["status"] == "SUCCESS"
        (output,) = result["outputs"]
        assert requests.get(output["href"], timeout=10).status_code == 200


def test_nobody_gets_a_fault_of_the_program_whatever_they_ask(state: TaskState) -> None:
    for number in range(3):
        ProcessingTask(f"task {number}", task_log="one\ntwo").save(commit=True)
    schema = schemathesis.openapi.from_wsgi("/openapi.json", create_app(state))
    faults: list[str] = []

    tried = set()
    for found in schema.get_all_operations():
        operation: Any = found.ok()  # type: ignore[union-attr]  # the document is sound
        # A stream has no end.
        if not operation.path.endswith("events"):
            tried.add(operation.path)
            _probe(operation, faults)
    assert faults == []
    assert {"/tasks/", "/tasks/{task_id}/", "/tasks/{task_id}/log", "/files/{file_id}/"} <= tried


def _probe(operation: Any, faults: list[str]) -> None:
    @EXAMPLES
    @given(case=operation.as_strategy())
    def probe(case: Any) -> None:
        answer = case.call(headers={"Host": "localhost"})
        if answer.status_code >= 500:
            faults.append(f"{case.method} {case.formatted_path} {case.query}: {answer.status_code} {answer.text[:200]}")

    probe()
