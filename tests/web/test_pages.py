"""The pages as a browser without a script gets them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select

from qhana_taskstate import ProcessingTask, TaskState
from qhana_taskstate.clock import now
from qhana_taskstate.database.tables.deliveries import delivery_table
from qhana_taskstate.models.link import TaskLink
from qhana_taskstate.web import task_blueprint
from qhana_taskstate.web.pages.task import log_part
from qhana_taskstate.web.pages.words import readable, span
from tests.apps import jobs

from .conftest import MakeClient

pytestmark = pytest.mark.databases("sqlite")

#: What a browser says of a form that it sends to the page's own server.
FORM = {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"}


def make_task(name: str = "clustering", **values: Any) -> ProcessingTask:
    task = ProcessingTask(name, **values)
    task.save(commit=True)
    return task


def test_an_empty_list_says_what_to_do(client: FlaskClient, state: TaskState) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    assert "No task yet" in answer.text


def test_the_list_shows_what_runs_what_waits_and_why_something_failed(client: FlaskClient, state: TaskState) -> None:
    waiting = make_task("dialogue")
    waiting.add_next_step("http://p/1", "http://p/1/ui", "clusters", commit=True)
    state.start(jobs.fail.s("no such file"))
    make_task("half", progress_value=50)
    text = client.get("/").text
    assert "Waits for you" in text
    assert 'href="http://p/1/ui"' in text
    assert "ValueError: no such file" in text
    assert "50 %" in text


def test_tabs_and_search_narrow_the_list(client: FlaskClient, state: TaskState) -> None:
    make_task("apple", task_status="ERROR")
    make_task("pear", task_log="with a needle")
    assert re.findall(r">(apple|pear)</a>", client.get("/?show=failed").text) == ["apple"]
    assert re.findall(r">(apple|pear)</a>", client.get("/?search=needle").text) == ["pear"]
    assert "Nothing found" in client.get("/?search=haystack").text
    assert client.get("/?show=nonsense&before=nonsense").status_code == 200


def test_pages_of_the_list_follow_each_other(client: FlaskClient, state: TaskState) -> None:
    with state.database.transaction() as connection:
        connection.exec_driver_sql(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 120) "
            "INSERT INTO \"ProcessingTask\" (id, task_name, task_log) SELECT i, 'hay', '' FROM n"
        )
    seen: list[str] = []
    href = "/"
    while href:
        text = client.get(href).text
        seen += re.findall(r'class="id">(\d+)<', text)
        older = re.search(r'href="([^"]*)">Older', text)
        href = older[1].replace("&amp;", "&") if older else ""
    assert seen == [str(task_id) for task_id in range(120, 0, -1)]


def test_the_page_of_a_task_has_all_of_it(client: FlaskClient, state: TaskState) -> None:
    task = state.start(jobs.log_then_fail.s())
    state.session.add(TaskLink(task, "of-weights", "https://x.example/"))
    state.subscribe(task, "http://backend/hook?token=secret", "http://t/")
    text = client.get(f"/tasks/{task.id}/page").text
    assert "Failed" in text
    assert "RuntimeError: after the line" in text
    assert "kept line" in text
    assert "Traceback" in text
    assert 'href="https://x.example/"' in text
    assert "http://backend/hook" in text
    assert "token=secret" not in text


def test_there_is_no_such_page(client: FlaskClient, state: TaskState) -> None:
    for path in ("/tasks/7/page", f"/tasks/{2**40}/page"):
        answer = client.get(path)
        assert (answer.status_code, answer.mimetype) == (404, "text/html")
        assert "Task not found." in answer.text


@pytest.mark.parametrize(
    "href",
    ["javascript:alert(1)", "data:text/html,x", "//evil.example/", "/\\evil.example", " javascript:x"],
)
def test_only_links_to_http_are_links(client: FlaskClient, state: TaskState, href: str) -> None:
    task = make_task("<script>alert(1)</script>", task_log="<b>bold</b>")
    task.add_next_step(href, href, "<i>k</i>")
    state.session.add(TaskLink(task, "type", href))
    state.session.commit()
    for path in ("/", f"/tasks/{task.id}/page"):
        text = client.get(path).text
        assert f'href="{href}"' not in text
        assert "<script>alert" not in text
        assert "<b>bold" not in text
        assert "<i>k" not in text


@pytest.mark.parametrize("path", ["/", "/tasks/1/page", "/tasks/9/page", "/openapi"])
def test_pages_allow_nothing_but_this_servers_own_assets(client: FlaskClient, state: TaskState, path: str) -> None:
    make_task()
    answer = client.get(path)
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert not re.search(r'(?:src|href)="https?:', answer.text)
    assert not re.search(r"\son\w+=|\sstyle=|<style|<script(?![^>]*\ssrc=)", answer.text)


def test_assets_are_there_though_nobody_may_read(make_client: MakeClient, state: TaskState) -> None:
    client = make_client(may_read=lambda: False)
    assert client.get("/").status_code == 403
    for name in ("taskstate.css", "taskstate.js", "icon.svg"):
        with client.get(f"/taskstate-static/{name}") as answer:
            assert answer.status_code == 200


class TestChanges:
    def test_several_tasks_are_cancelled_at_once(self, client: FlaskClient, state: TaskState) -> None:
        one, two, other = make_task(), make_task(), make_task()
        answer = client.post("/cancel", data={"task": [one.id, two.id, "9999", "x"], "show": "open"}, headers=FORM)
        assert (answer.status_code, answer.headers["Location"]) == (303, "/?show=open")
        ended = [ProcessingTask.get_by_id(task.id) for task in (one, two, other)]
        assert [task.is_finished for task in ended if task is not None] == [True, True, False]

    def test_one_is_cancelled_on_its_page(self, client: FlaskClient, state: TaskState) -> None:
        task = make_task()
        answer = client.post(f"/tasks/{task.id}/page", data={"action": "cancel"}, headers=FORM)
        assert (answer.status_code, answer.headers["Location"]) == (303, f"/tasks/{task.id}/page")
        assert "cancelled: on the page" in client.get(f"/tasks/{task.id}/page").text

    @pytest.mark.parametrize("headers", [{}, {"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}])
    def test_a_form_of_another_site_does_nothing(
        self, client: FlaskClient, state: TaskState, headers: dict[str, str]
    ) -> None:
        task = make_task()
        for path in ("/cancel", f"/tasks/{task.id}/page", f"/tasks/{task.id}/cancel"):
            sent = client.post(path, data={"task": task.id, "action": "cancel"}, headers=headers)
            assert sent.status_code == 403
        found = ProcessingTask.get_by_id(task.id)
        assert found is not None
        assert not found.is_finished

    def test_who_may_not_change_sees_no_button(self, make_client: MakeClient, state: TaskState) -> None:
        task = make_task()
        client = make_client(may_change=lambda: False)
        failed = state.start(jobs.fail.s())
        assert "Traceback" in make_client().get(f"/tasks/{failed.id}/page").text
        assert "Traceback" not in client.get(f"/tasks/{failed.id}/page").text
        assert "Traceback" in make_client().get(f"/tasks/{failed.id}/executions").text
        assert "raceback" not in client.get(f"/tasks/{failed.id}/executions").text
        for path in ("/", f"/tasks/{task.id}/page"):
            assert "Cancel" not in client.get(path).text
        assert client.post("/cancel", data={"task": task.id}, headers=FORM).status_code == 403


class TestReplay:
    def dead_delivery(self, state: TaskState, task: ProcessingTask) -> int:
        subscription = state.subscribe(task, "http://backend/hook", "http://t/", "status")
        values = {"subscription_id": subscription.id, "event": "status", "task_id": task.id, "sequence": 1}
        values |= {"host": "backend:80", "dead_at": now(), "answer": "answered 500", "attempts": 10}
        with state.database.transaction() as connection:
            connection.execute(delivery_table.delete())
            inserted: Any = connection.execute(delivery_table.insert().values(**values)).inserted_primary_key
            return int(inserted[0])

    def state_of(self, state: TaskState, delivery_id: int) -> Any:
        with state.database.reading() as connection:
            query = select(delivery_table.c.due_at).where(delivery_table.c.id == delivery_id)
            return connection.execute(query).scalar_one()

    def test_a_dead_delivery_is_made_once_more(self, client: FlaskClient, state: TaskState) -> None:
        state.app.conf.task_always_eager = False
        task = make_task()
        delivery = self.dead_delivery(state, task)
        assert "answered 500" in client.get(f"/tasks/{task.id}/page").text
        sent = client.post(f"/tasks/{task.id}/page", data={"action": "replay", "delivery": delivery}, headers=FORM)
        assert sent.status_code == 303
        assert self.state_of(state, delivery) is not None

    def test_one_of_another_task_is_not(self, client: FlaskClient, state: TaskState) -> None:
        state.app.conf.task_always_eager = False
        task, other = make_task(), make_task()
        delivery = self.dead_delivery(state, task)
        for number in (delivery, "x", "9" * 30):
            client.post(f"/tasks/{other.id}/page", data={"action": "replay", "delivery": number}, headers=FORM)
        assert self.state_of(state, delivery) is None


def test_a_database_that_is_away_is_said_and_the_page_tries_again(tmp_path: Path) -> None:
    away = TaskState(Celery("away", broker="memory://"), database_url=f"sqlite:///{tmp_path}/no/such/folder.db")
    web = Flask(__name__)
    web.register_blueprint(task_blueprint(away, may_read=lambda: True))
    for path in ("/", "/tasks/1/page"):
        answer = web.test_client().get(path)
        assert (answer.status_code, answer.mimetype, answer.headers["Retry-After"]) == (503, "text/html", "5")
        assert 'data-retry="/healthz"' in answer.text
        assert str(tmp_path) not in answer.text
    away.close()


class TestLog:
    def test_the_page_holds_the_newest_lines_and_the_file_all(self, client: FlaskClient, state: TaskState) -> None:
        log = "\n".join(f"line {number}" for number in range(2000))
        task = make_task(task_log=log)
        text = client.get(f"/tasks/{task.id}/page").text
        assert "line 1999" in text
        assert "line 3\n" not in text
        whole = client.get(f"/tasks/{task.id}/log.txt")
        assert (whole.text, whole.mimetype) == (log, "text/plain")
        assert "attachment" in whole.headers["Content-Disposition"]

    def test_it_is_searched_without_a_script(self, client: FlaskClient, state: TaskState) -> None:
        task = make_task(task_log="one\nTwo <x>\nthree")
        text = client.get(f"/tasks/{task.id}/page?find=two").text
        assert "Two &lt;x&gt;" in text
        assert ">one" not in text

    def test_what_steers_a_terminal_is_removed(self) -> None:
        assert readable("\x1b[1;31mred\x1b[0m \x1b]8;;http://x\x07link\x1b]8;;\x07\r\nnext\x07\x00") == (
            "red link\nnext\\x07\\x00"
        )

    def test_parts(self) -> None:
        part = log_part("a\nb\nab", "B")
        assert (part.text, part.total, part.shown, part.offset) == ("b\nab", 3, 2, 6)
        assert log_part("", "").total == 0


def test_the_document_describes_what_there_is(make_client: MakeClient, state: TaskState) -> None:
    client = make_client(url_prefix="/jobs")
    document = client.get("/jobs/openapi.json").get_json()
    assert document["servers"] == [{"url": "/jobs"}]
    assert {"/tasks/", "/tasks/{task_id}/", "/tasks/{task_id}/log", "/healthz"} <= set(document["paths"])
    assert "GET" in client.get("/jobs/openapi").text


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.2, "0.2 s"), (42, "42 s"), (95, "1 min 35 s"), (3600 * 5, "5 h 0 min")],
)
def test_spans(seconds: float, told: str) -> None:
    assert span(seconds) == told
