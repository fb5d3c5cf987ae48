"""What programs can ask for beside the task resource."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient

from qhana_taskstate import ProcessingTask, TaskState
from qhana_taskstate.testing import wait_until
from tests.apps import jobs

from .conftest import MakeClient

pytestmark = pytest.mark.databases("sqlite")


def make_task(name: str = "clustering", **values: Any) -> ProcessingTask:
    task = ProcessingTask(name, **values)
    task.save(commit=True)
    return task


def listed(client: FlaskClient, query: str = "") -> list[int]:
    return [task["taskId"] for task in client.get(f"/tasks/{query}").get_json()["tasks"]]


class TestList:
    def test_the_newest_come_first_and_pages_follow_each_other(self, client: FlaskClient, state: TaskState) -> None:
        ids = [make_task().id for _ in range(5)]
        first = client.get("/tasks/?limit=2").get_json()
        second = client.get(f"/tasks/?limit=2&before={first['next']}").get_json()
        third = client.get(f"/tasks/?limit=2&before={second['next']}").get_json()
        seen = [task["taskId"] for page in (first, second, third) for task in page["tasks"]]
        assert seen == ids[::-1]
        assert third["next"] is None

    def test_a_page_that_is_just_full_may_be_the_last(self, client: FlaskClient, state: TaskState) -> None:
        for _ in range(2):
            make_task()
        assert client.get("/tasks/?limit=2").get_json()["next"] is None

    @pytest.mark.parametrize("word", ["ERROR", "FAILURE", "failure"])
    def test_both_words_for_a_failed_task_are_known(self, client: FlaskClient, state: TaskState, word: str) -> None:
        failed = [make_task(task_status=status).id for status in ("ERROR", "FAILURE")]
        make_task(task_status="SUCCESS")
        make_task()
        assert listed(client, f"?status={word}") == failed[::-1]
        assert client.get("/tasks/?status=ERROR").get_json()["tasks"][0]["status"] == "FAILURE"

    def test_filters(self, client: FlaskClient, state: TaskState) -> None:
        pending = make_task("Alpha", task_log="needle here")
        done = make_task("beta", task_status="SUCCESS")
        waiting = make_task("gamma")
        waiting.add_next_step("http://p/", "http://p/ui", "k", commit=True)
        assert listed(client, "?status=PENDING") == [waiting.id, pending.id]
        assert listed(client, "?status=SUCCESS") == [done.id]
        assert listed(client, "?waiting=true") == [waiting.id]
        assert listed(client, "?name=ALPH") == [pending.id]
        assert listed(client, "?search=NEEDLE") == [pending.id]
        assert listed(client, "?search=bet") == [done.id]
        assert listed(client, "?search=%25") == []

    def test_old_tasks_are_found_behind_many_others(self, client: FlaskClient, state: TaskState) -> None:
        old = make_task("needle")
        with state.database.transaction() as connection:
            connection.exec_driver_sql(
                "WITH RECURSIVE n(i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n WHERE i < 50000) "
                "INSERT INTO \"ProcessingTask\" (id, task_name, task_log) SELECT i, 'hay', '' FROM n"
            )
        found: list[int] = []
        query, pages = "", 0
        while pages < 20:
            page = client.get(f"/tasks/?search=needle{query}").get_json()
            found += [task["taskId"] for task in page["tasks"]]
            pages += 1
            if page["next"] is None:
                break
            query = f"&before={page['next']}"
        assert found == [old.id]

    @pytest.mark.parametrize(
        "query", ["limit=0", "limit=501", "limit=x", "before=5", "before=5-x", "before=x", "waiting=5"]
    )
    def test_a_query_that_makes_no_sense_is_422(self, client: FlaskClient, state: TaskState, query: str) -> None:
        answer = client.get(f"/tasks/?{query}")
        assert answer.status_code == 422
        assert answer.get_json()["errors"]["query"][query.partition("=")[0]]

    def test_a_cursor_of_another_list_is_422(self, client: FlaskClient, state: TaskState) -> None:
        for _ in range(3):
            make_task()
        cursor = client.get("/tasks/?limit=1").get_json()["next"]
        answer = client.get(f"/tasks/?limit=1&status=PENDING&before={cursor}")
        assert (answer.status_code, list(answer.get_json()["errors"]["query"])) == (422, ["before"])


class TestLog:
    def test_the_tail_comes_without_the_rest(self, client: FlaskClient, state: TaskState) -> None:
        task = make_task(task_log="erste Zeile ü")
        first = client.get(f"/tasks/{task.id}/log").get_json()
        assert first == {"log": "erste Zeile ü", "offset": 13, "finished": False}
        assert client.get(f"/tasks/{task.id}/log?after=13").get_json()["log"] == ""
        task.add_task_log_entry("second", commit=True)
        assert client.get(f"/tasks/{task.id}/log?after=13").get_json()["log"] == "\nsecond"

    def test_as_text(self, client: FlaskClient, state: TaskState) -> None:
        task = make_task(task_log="a\nb")
        answer = client.get(f"/tasks/{task.id}/log?after=2", headers={"Accept": "text/plain"})
        assert (answer.mimetype, answer.text, answer.headers["X-Log-Offset"]) == ("text/plain", "b", "3")

    @pytest.mark.parametrize("after", ["4", "-1", "x", "99999999999999999999"])
    def test_an_offset_that_is_none_is_422(self, client: FlaskClient, state: TaskState, after: str) -> None:
        task = make_task(task_log="abc")
        answer = client.get(f"/tasks/{task.id}/log?after={after}")
        assert (answer.status_code, list(answer.get_json()["errors"]["query"])) == (422, ["after"])


def test_executions_are_listed_with_their_attempts(client: FlaskClient, state: TaskState) -> None:
    task = state.start(jobs.say.s("hello"))
    (execution,) = client.get(f"/tasks/{task.id}/executions").get_json()["executions"]
    assert (execution["state"], execution["attempt"], execution["name"]) == ("SUCCESS", 1, "tests.apps.jobs.say")


class TestCancel:
    def test_once(self, client: FlaskClient, state: TaskState) -> None:
        task = make_task()
        assert client.post(f"/tasks/{task.id}/cancel", json={"reason": "enough"}).get_json() == {"cancelled": True}
        assert client.post(f"/tasks/{task.id}/cancel").get_json() == {"cancelled": False}
        told = client.get(f"/tasks/{task.id}/").get_json()
        assert (told["status"], told["log"]) == ("FAILURE", "cancelled: enough")

    def test_with_nonsense(self, client: FlaskClient, state: TaskState) -> None:
        task = make_task()
        assert client.post(f"/tasks/{task.id}/cancel", json={"terminate": "perhaps"}).status_code == 422
        assert client.post(f"/tasks/{task.id}/cancel", json={"reason": "x" * 501}).status_code == 422


class TestRestart:
    def test_a_new_task_names_the_old_one(self, client: FlaskClient, state: TaskState) -> None:
        old = state.start(jobs.repeat.s("once"))
        answer = client.post(f"/tasks/{old.id}/restart")
        told = answer.get_json()
        assert (answer.status_code, answer.headers["Location"]) == (201, told["href"])
        links = client.get(f"/tasks/{told['taskId']}/").get_json()["links"]
        assert {"type": "restart-of", "href": f"http://localhost/tasks/{old.id}/"} in links

    def test_what_was_not_kept_says_what_to_add(self, client: FlaskClient, state: TaskState) -> None:
        old = state.start(jobs.say.s())
        answer = client.post(f"/tasks/{old.id}/restart")
        assert answer.status_code == 409
        assert "restartable=True" in answer.get_json()["message"]
        assert client.post("/tasks/99/restart").status_code == 404


@pytest.mark.parametrize("path", ["log", "executions", "events"])
@pytest.mark.parametrize("task_id", [9, 2**31])
def test_of_a_task_that_does_not_exist_there_is_nothing(
    client: FlaskClient, state: TaskState, path: str, task_id: int
) -> None:
    answer = client.get(f"/tasks/{task_id}/{path}")
    assert (answer.status_code, answer.get_json()["message"]) == (404, "Task not found.")
    assert client.post(f"/tasks/{task_id}/cancel", json={}).status_code == 404


def events_of(stream: Iterator[bytes]) -> Iterator[dict[str, str]]:
    """Read server-sent events; comments are left out."""
    for chunk in stream:
        for block in chunk.decode().strip().split("\n\n"):
            event = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
            if event:
                yield event


class TestEvents:
    def test_a_stream_tells_what_changed_until_the_end(self, client: FlaskClient, state: TaskState) -> None:
        task = make_task()
        answer = client.get(f"/tasks/{task.id}/events")
        assert (answer.status_code, answer.mimetype) == (200, "text/event-stream")
        events = events_of(iter(answer.response))  # type: ignore[arg-type]  # bytes, in the test client
        begun = next(events)
        assert begun["id"]
        task.add_next_step("http://p/", "http://p/ui", "k", commit=True)
        assert next(events)["event"] == "steps"
        state.finish(task.id, log="over")
        rest = list(events)
        assert {event["event"] for event in rest} == {"status", "steps", "details"}
        assert json.loads(rest[-1]["data"]) == {"taskId": task.id, "finished": True}
        answer.close()

    def test_it_resumes_after_what_the_client_knows(self, client: FlaskClient, state: TaskState) -> None:
        task = make_task()
        answer = client.get(f"/tasks/{task.id}/events")
        known = next(events_of(iter(answer.response)))["id"]  # type: ignore[arg-type]
        answer.close()
        task.add_task_log_entry("missed", commit=True)
        again = client.get(f"/tasks/{task.id}/events", headers={"Last-Event-ID": known})
        events = events_of(iter(again.response))  # type: ignore[arg-type]
        next(events)
        assert next(events)["event"] == "details"
        again.close()

    def test_who_knows_the_end_is_sent_home(self, client: FlaskClient, state: TaskState) -> None:
        task = make_task(task_status="SUCCESS")
        events = list(events_of(iter(client.get(f"/tasks/{task.id}/events").response)))  # type: ignore[arg-type]
        assert "status" in {event.get("event") for event in events}
        answer = client.get(f"/tasks/{task.id}/events", headers={"Last-Event-ID": events[-1]["id"]})
        assert (answer.status_code, answer.data) == (204, b"")

    def test_a_list_hears_of_its_tasks_and_of_new_ones(self, client: FlaskClient, state: TaskState) -> None:
        shown, other = make_task(), make_task()
        answer = client.get(f"/tasks/events?ids={shown.id}")
        events = events_of(iter(answer.response))  # type: ignore[arg-type]
        next(events)
        next(events)
        other.add_task_log_entry("not shown", commit=True)
        shown.add_task_log_entry("shown", commit=True)
        assert json.loads(next(events)["data"])["tasks"] == [shown.id]
        new = make_task()
        assert json.loads(next(events)["data"])["newest"] == new.id
        answer.close()

    @pytest.mark.parametrize("ids", ["x", "1,-2", ",".join(["1"] * 501)])
    def test_ids_that_are_none(self, client: FlaskClient, state: TaskState, ids: str) -> None:
        assert client.get(f"/tasks/events?ids={ids}").status_code == 422

    def test_all_streams_share_one_thread_and_it_ends_with_them(
        self, make_client: MakeClient, state: TaskState
    ) -> None:

        def watchers() -> int:
            return sum(thread.name == "taskstate-watcher" for thread in threading.enumerate())

        client = make_client()
        task = make_task()
        wait_until("those of other tests have ended", lambda: watchers() == 0)
        answers = [client.get(f"/tasks/{task.id}/events") for _ in range(20)]
        assert watchers() == 1
        for answer in answers:
            answer.close()
        wait_until("the watcher has ended", lambda: watchers() == 0)


class TestHealth:
    def test_ready(self, make_client: MakeClient, state: TaskState) -> None:
        answer = make_client(may_read=lambda: False).get("/healthz")
        assert (answer.status_code, answer.get_json()) == (200, {"status": "ready"})

    def test_without_its_tables_it_is_not(self, client: FlaskClient, state: TaskState) -> None:
        with state.database.transaction() as connection:
            connection.exec_driver_sql("DROP TABLE taskstate_alembic_version")
        answer = client.get("/healthz")
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
        assert "upgrade" in answer.get_json()["message"]
