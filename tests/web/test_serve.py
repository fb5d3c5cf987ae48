"""The application of `taskstate serve`: who is let in, and what it takes to open it to others."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from qhana_taskstate import ProcessingTask, TaskState
from qhana_taskstate.testing import LocalProcess, wait_until
from qhana_taskstate.testing.plugin import RunCelery
from qhana_taskstate.testing.server import free_port
from qhana_taskstate.web.serving.application import create_app
from tests.apps.factory import close_state, make_app

pytestmark = pytest.mark.databases("sqlite")

TOKEN = "correct horse battery staple"


def client_of(state: TaskState) -> FlaskClient:
    app = create_app(state)
    app.testing = True
    return app.test_client()


@pytest.fixture
def guarded(migrated_database_url: str) -> Iterator[TaskState]:
    """A `TaskState` whose server wants a token."""
    app, state = make_app("memory://", None, migrated_database_url, web_token=TOKEN)
    app.set_current()
    yield state
    close_state(state)


def test_without_a_token_this_machine_is_let_in(state: TaskState) -> None:
    client = client_of(state)
    assert client.get("/").status_code == 200
    for host in ("127.0.0.1:5550", "localhost", "[::1]:80"):
        assert client.get("/healthz", headers={"Host": host}).status_code == 200


def test_its_threads_show_the_tasks_of_its_own_app_where_a_process_has_several(
    state: TaskState, tmp_path: Path
) -> None:
    task = ProcessingTask("here")
    task.save(commit=True)
    _, other = make_app("memory://", None, f"sqlite:///{tmp_path / 'other.db'}")
    other.upgrade()
    answers: list[Any] = []
    subscribe = {"command": "subscribe", "webhookHref": "http://backend/hook"}

    def visit() -> None:
        answers.append(client_of(state).post(f"/tasks/{task.id}/", json=subscribe).status_code)
        answers.append(client_of(state).get(f"/tasks/{task.id}/").status_code)

    thread = threading.Thread(target=visit)
    thread.start()
    thread.join()
    close_state(other)

    assert answers == [200, 200]


def test_a_name_that_leads_here_from_elsewhere_is_refused(state: TaskState) -> None:
    assert client_of(state).get("/tasks/", headers={"Host": "evil.example"}).status_code == 400


class TestToken:
    def test_programs_show_it(self, guarded: TaskState) -> None:
        client = client_of(guarded)
        refused = client.get("/tasks/")
        assert refused.status_code == 401
        assert refused.headers["WWW-Authenticate"].startswith("Bearer")
        assert client.get("/tasks/", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
        assert client.get("/healthz").status_code == 200

    @pytest.mark.parametrize("shown", ["Bearer wrong", "Bearer", "Basic x", "Bearer \xe9", f"Bearer {TOKEN}x"])
    def test_a_wrong_one_is_401(self, guarded: TaskState, shown: str) -> None:
        answer = client_of(guarded).get("/tasks/", headers={"Authorization": shown})
        assert (answer.status_code, answer.get_json()["code"]) == (401, 401)

    def test_people_type_it_once(self, guarded: TaskState) -> None:
        client = client_of(guarded)
        html = {"Accept": "text/html"}
        sent = client.get("/?show=failed", headers=html)
        assert (sent.status_code, sent.headers["Location"]) == (303, "/login?next=/?show%3Dfailed")
        assert "Token" in client.get("/login").text
        assert client.post("/login", data={"token": "wrong"}).status_code == 401
        answer = client.post("/login", data={"token": TOKEN, "next": "/?show=failed"})
        assert (answer.status_code, answer.headers["Location"]) == (303, "/?show=failed")
        cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert TOKEN not in cookie
        assert client.get("/", headers=html).status_code == 200

    @pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:x"])
    def test_the_form_leads_nowhere_else(self, guarded: TaskState, target: str) -> None:
        answer = client_of(guarded).post("/login", data={"token": TOKEN, "next": target})
        assert answer.headers["Location"] == "/"


class TestCommand:
    def test_other_addresses_need_a_token(self, run_celery: RunCelery, tmp_path: Path) -> None:
        refused = run_celery("-A", "worker", "taskstate", "serve", "--host", "0.0.0.0")  # noqa: S104
        assert refused.returncode == 2
        assert "TASKSTATE_WEB_TOKEN" in refused.stderr

    def test_it_serves_many_open_streams_in_one_process(
        self, migrated_database_url: str, worker_environment: dict[str, str | None], tmp_path: Path, state: TaskState
    ) -> None:
        task = ProcessingTask("watched")
        task.save(commit=True)
        port = free_port()
        environment: Any = {**os.environ, **worker_environment}
        process = LocalProcess(
            [sys.executable, "-m", "celery", "-A", "worker", "taskstate", "serve", "--port", str(port)],
            log_path=tmp_path / "serve.log",
            env={name: value for name, value in environment.items() if value is not None},
        )
        process.start()
        try:
            wait_until("it is ready", lambda: _status(f"http://127.0.0.1:{port}/healthz") == 200, timeout=60)
            assert f"the page is at http://127.0.0.1:{port}/" in process.logs()
            told = _listen(f"http://127.0.0.1:{port}/tasks/{task.id}/events", 200)
            started = time.monotonic()
            state.finish(task.id)
            wait_until("all are told", lambda: sum(told) == 200, timeout=30)
            assert time.monotonic() - started < 15
        finally:
            process.close()


def _status(href: str) -> int:
    try:
        with urllib.request.urlopen(href, timeout=5) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0


def _listen(href: str, count: int) -> list[bool]:
    """Open streams; each place becomes True when its stream tells of the end."""
    told = [False] * count
    opened = threading.Semaphore(0)

    def listen(place: int) -> None:
        with urllib.request.urlopen(href, timeout=60) as answer:  # noqa: S310
            answer.readline()
            opened.release()
            for line in answer:
                if line.startswith(b"data:") and json.loads(line[5:])["finished"]:
                    told[place] = True
                    return

    for place in range(count):
        threading.Thread(target=listen, args=(place,), daemon=True).start()
    for _ in range(count):
        assert opened.acquire(timeout=60)
    return told
