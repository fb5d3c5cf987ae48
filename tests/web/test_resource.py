"""The task resource as QHAna's backend, plugins and pages know it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from flask import Flask, redirect
from flask.testing import FlaskClient
from sqlalchemy import update

from qhana_taskstate import ProcessingTask, TaskState
from qhana_taskstate.database.tables.log import log_table
from qhana_taskstate.models.file import TaskFile
from qhana_taskstate.models.link import TaskLink
from qhana_taskstate.models.step import Step
from qhana_taskstate.models.subscription import TaskUpdateSubscription
from qhana_taskstate.web import task_blueprint
from tests.contract.conftest import count_rows

from .conftest import MakeClient

step_table: Any = Step.__table__

WEBHOOK = "http://backend:9090/webhooks/1"


def make_task(**values: Any) -> ProcessingTask:
    task = ProcessingTask("clustering", **values)
    task.save(commit=True)
    return task


def output_of(task: ProcessingTask) -> TaskFile:
    return TaskFile(
        task,
        security_tag="t",
        storage_provider="url_file_store",
        file_name="a",
        file_storage_data="http://x/",
        file_type="custom",
        mimetype="text/csv",
    )


def subscriptions(task: ProcessingTask) -> list[tuple[str, str, str | None]]:
    found = ProcessingTask.get_by_id(task.id)
    assert found is not None
    return [(row.webhook_href, row.task_href, row.event_type) for row in found.subscriptions]


class TestGet:
    def test_a_new_task_has_what_is_always_there_and_nothing_else(self, client: FlaskClient, state: TaskState) -> None:
        task = make_task()
        answer = client.get(f"/tasks/{task.id}/")
        assert answer.status_code == 200
        assert answer.mimetype == "application/json"
        told = answer.get_json()
        assert told["status"] == "PENDING"
        assert told["log"] == ""
        assert told["outputs"] == []
        assert told["links"] == [{"type": "subscribe", "href": f"http://localhost/tasks/{task.id}/"}]
        assert "steps" not in told
        assert "progress" not in told

    def test_progress_is_shown_at_0_and_its_fractions_are_kept(self, client: FlaskClient, state: TaskState) -> None:
        none_yet = make_task(progress_value=0, progress_target=3, progress_unit="rows")
        some = make_task(progress_value=66.5)
        assert client.get(f"/tasks/{none_yet.id}/").get_json()["progress"] == {
            "value": 0,
            "start": 0,
            "target": 3,
            "unit": "rows",
        }
        assert client.get(f"/tasks/{some.id}/").get_json()["progress"] == {
            "value": 66.5,
            "start": 0,
            "target": 100,
            "unit": "%",
        }

    def test_steps_are_in_order_and_have_the_four_keys_alone(self, client: FlaskClient, state: TaskState) -> None:
        task = make_task()
        task.add_next_step("http://p/1", "http://p/1/ui", "first", commit=True)
        task.clear_previous_step(commit=True)
        task.add_next_step("http://p/2", "http://p/2/ui", "second", commit=True)
        assert client.get(f"/tasks/{task.id}/").get_json()["steps"] == [
            {"href": "http://p/1", "uiHref": "http://p/1/ui", "stepId": "first", "cleared": True},
            {"href": "http://p/2", "uiHref": "http://p/2/ui", "stepId": "second", "cleared": False},
        ]

    @pytest.mark.parametrize("word", ["ERROR", "FAILURE"])
    def test_a_failed_task_has_the_word_of_the_wire(self, client: FlaskClient, state: TaskState, word: str) -> None:
        task = make_task(task_status=word)
        assert client.get(f"/tasks/{task.id}/").get_json()["status"] == "FAILURE"

    def test_outputs_come_with_the_end_and_have_addresses(self, client: FlaskClient, state: TaskState) -> None:
        task = make_task()
        common: dict[str, Any] = {
            "file_name": "a.csv",
            "file_type": "entity/label",
            "mimetype": "text/csv",
            "security_tag": "t" * 43,
        }
        TaskFile(task, storage_provider="url_file_store", file_storage_data="ftp://x/y", **common).save()
        TaskFile(task, storage_provider="local_filesystem", file_storage_data="/a.csv", **common).save()
        TaskFile(task, storage_provider="minio", file_storage_data="bucket", **common).save()
        TaskFile(task, storage_provider="url_file_store", file_storage_data="x", **{**common, "mimetype": None}).save()
        TaskFile(
            task, storage_provider="url_file_store", file_storage_data="x", **{**common, "file_type": "temp-file"}
        ).save(commit=True)
        assert client.get(f"/tasks/{task.id}/").get_json()["outputs"] == []
        state.finish(task.id)

        outputs = client.get(f"/tasks/{task.id}/").get_json()["outputs"]
        local = TaskFile.get_by_id(task.outputs[1].id)
        assert local is not None
        href = f"http://localhost/files/{local.id}/?file-id={'t' * 43}"
        rest = {"dataType": "entity/label", "contentType": "text/csv", "name": "a.csv"}
        # Nobody knows where the third is: a reader takes no output without an address.
        assert outputs == [{**rest, "href": "ftp://x/y"}, {**rest, "href": href}]

    def test_the_host_says_where_its_files_are(self, make_client: MakeClient, state: TaskState) -> None:
        task = make_task()
        TaskFile(
            task,
            security_tag="t",
            storage_provider="minio",
            file_name="a",
            file_storage_data="bucket/a",
            file_type="custom",
            mimetype="text/csv",
        ).save(commit=True)
        state.finish(task.id)
        client = make_client(file_url=lambda file: f"https://store/{file.file_storage_data}")
        (output,) = client.get(f"/tasks/{task.id}/").get_json()["outputs"]
        assert output["href"] == "https://store/bucket/a"

    def test_below_a_prefix_addresses_hold_it(self, make_client: MakeClient, state: TaskState) -> None:
        task = make_task()
        told = make_client(url_prefix="/jobs").get(f"/jobs/tasks/{task.id}/").get_json()
        assert told["links"][0]["href"] == f"http://localhost/jobs/tasks/{task.id}/"

    @pytest.mark.parametrize("task_id", ["77", "99999999999999999999", "0"])
    def test_a_task_that_does_not_exist_is_404_in_todays_form(
        self, client: FlaskClient, state: TaskState, task_id: str
    ) -> None:
        answer = client.get(f"/tasks/{task_id}/")
        assert answer.status_code == 404
        assert answer.get_json() == {"code": 404, "message": "Task not found.", "status": "Not Found"}


class TestNotModified:
    def test_a_client_that_knows_the_task_gets_304(self, client: FlaskClient, state: TaskState) -> None:
        task = make_task()
        first = client.get(f"/tasks/{task.id}/")
        again = client.get(f"/tasks/{task.id}/", headers={"If-None-Match": first.headers["ETag"]})
        assert (again.status_code, again.data) == (304, b"")
        assert again.headers["ETag"] == first.headers["ETag"]

    @pytest.mark.parametrize(
        "change",
        ["name", "log", "replaced log", "progress", "step", "cleared step", "end", "link", "output", "unit"],
    )
    def test_whatever_is_shown_changes_the_tag(self, client: FlaskClient, state: TaskState, change: str) -> None:
        task = make_task(task_log="one", progress_value=1)
        task.add_next_step("http://p/1", "http://p/1/ui", "first", commit=True)
        if change == "output":
            state.finish(task.id)
        before = client.get(f"/tasks/{task.id}/")
        match change:
            case "name":
                task.task_name = "Clustering"
            case "log":
                task.add_task_log_entry("two")
            case "replaced log":
                task.task_log = "owt"
            case "progress":
                task.progress_value = 2
            case "unit":
                task.progress_unit = "m"
            case "step":
                task.clear_previous_step()
                task.add_next_step("http://p/2", "http://p/2/ui", "second")
            case "cleared step":
                task.clear_previous_step()
            case "end":
                task.task_status = "SUCCESS"
            case "link":
                state.session.add(TaskLink(task, "of-weights", "http://x/"))
            case "output":
                output_of(task).save()
        state.session.commit()
        after = client.get(f"/tasks/{task.id}/", headers={"If-None-Match": before.headers["ETag"]})
        assert after.status_code == 200
        assert after.headers["ETag"] != before.headers["ETag"]
        assert after.get_json() != before.get_json()

    def test_a_log_entry_of_another_process_changes_the_tag(self, client: FlaskClient, state: TaskState) -> None:
        task = make_task(task_log="one")
        before = client.get(f"/tasks/{task.id}/").headers["ETag"]
        with state.database.transaction() as connection:
            connection.execute(log_table.insert().values(task_id=task.id, text="two", glued=False))
        assert client.get(f"/tasks/{task.id}/").headers["ETag"] != before

    def test_a_step_that_moved_changes_the_tag(self, client: FlaskClient, state: TaskState) -> None:
        task = make_task()
        task.add_next_step("http://p/1", "http://p/1/ui", "first", commit=True)
        before = client.get(f"/tasks/{task.id}/").headers["ETag"]
        with state.database.transaction() as connection:
            connection.execute(update(step_table).values(href="http://p/2"))
        assert client.get(f"/tasks/{task.id}/").headers["ETag"] != before


class TestPost:
    @pytest.mark.parametrize("event", [None, "status", "steps", "details"])
    def test_subscribe_answers_with_the_task(self, client: FlaskClient, state: TaskState, event: str | None) -> None:
        task = make_task()
        told = {"command": "subscribe", "webhookHref": WEBHOOK, "event": event}
        for _ in range(2):
            answer = client.post(f"/tasks/{task.id}/", json=told)
            assert answer.status_code == 200
            assert answer.get_json() == client.get(f"/tasks/{task.id}/").get_json()
        assert subscriptions(task) == [(WEBHOOK, f"http://localhost/tasks/{task.id}/", event)]

    def test_unsubscribe_without_an_event_removes_all_of_the_webhook(
        self, client: FlaskClient, state: TaskState
    ) -> None:
        task = make_task()
        for href in (WEBHOOK, WEBHOOK + "2"):
            for event in (None, "status"):
                TaskUpdateSubscription(task, href, "http://t/", event).save(commit=True)
        assert client.post(f"/tasks/{task.id}/", json={"command": "unsubscribe", "webhookHref": WEBHOOK}).status_code
        assert {row[0] for row in subscriptions(task)} == {WEBHOOK + "2"}

    def test_unsubscribe_with_null_removes_those_without_a_type(self, client: FlaskClient, state: TaskState) -> None:
        task = make_task()
        for event in (None, "status"):
            TaskUpdateSubscription(task, WEBHOOK, "http://t/", event).save(commit=True)
        client.post(f"/tasks/{task.id}/", json={"command": "unsubscribe", "webhookHref": WEBHOOK, "event": None})
        assert [row[2] for row in subscriptions(task)] == ["status"]

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"command": "explode", "webhookHref": WEBHOOK}, "command"),
            ({"webhookHref": WEBHOOK}, "command"),
            ({"command": 3, "webhookHref": WEBHOOK}, "command"),
            ({"command": "subscribe"}, "webhookHref"),
            ({"command": "subscribe", "webhookHref": None}, "webhookHref"),
            ({"command": "subscribe", "webhookHref": "ftp://x.example/"}, "webhookHref"),
            ({"command": "subscribe", "webhookHref": "http://10.0.0.1/"}, "webhookHref"),
            ({"command": "subscribe", "webhookHref": "http://u:p@x.example/"}, "webhookHref"),
            ({"command": "subscribe", "webhookHref": "http://x.example/" + "a" * 600}, "webhookHref"),
            ({"command": "subscribe", "webhookHref": WEBHOOK, "event": "n" * 65}, "event"),
            ({"command": "unsubscribe", "webhookHref": WEBHOOK, "event": "a\0b"}, "event"),
            ({"command": "subscribe", "webhookHref": "ftp://x.example/", "event": "noise"}, "webhookHref"),
            ({"command": "subscribe", "webhookHref": WEBHOOK, "more": 1}, "more"),
        ],
    )
    def test_what_is_wrong_is_named(
        self, client: FlaskClient, state: TaskState, body: dict[str, Any], field: str
    ) -> None:
        task = make_task()
        answer = client.post(f"/tasks/{task.id}/", json=body)
        assert answer.status_code == 422
        told = answer.get_json()
        assert (told["code"], told["status"]) == (422, "Unprocessable Entity")
        (reason,) = told["errors"]["json"][field]
        assert reason
        assert subscriptions(task) == []

    @pytest.mark.parametrize("event", ["noise", "", "STATUS"])
    def test_an_event_that_there_is_not_is_taken_as_today_and_never_called(
        self, client: FlaskClient, state: TaskState, event: str
    ) -> None:
        task = make_task()
        told = {"webhookHref": WEBHOOK, "event": event}
        for _ in range(2):
            answer = client.post(f"/tasks/{task.id}/", json={"command": "subscribe", **told})
            assert (answer.status_code, answer.get_json()["status"]) == (200, "PENDING")
        assert subscriptions(task) == [(WEBHOOK, f"http://localhost/tasks/{task.id}/", event)]
        state.finish(task.id)
        rows = count_rows(state)
        assert (rows["taskstate_change"], rows["taskstate_delivery"]) == (0, 0)
        other = {"command": "unsubscribe", "webhookHref": WEBHOOK, "event": "status"}
        assert client.post(f"/tasks/{task.id}/", json=other).status_code == 200
        assert len(subscriptions(task)) == 1
        assert client.post(f"/tasks/{task.id}/", json={"command": "unsubscribe", **told}).status_code == 200
        assert subscriptions(task) == []

    def test_a_command_that_is_null_is_400(self, client: FlaskClient, state: TaskState) -> None:
        task = make_task()
        answer = client.post(f"/tasks/{task.id}/", json={"command": None, "webhookHref": WEBHOOK})
        assert (answer.status_code, answer.get_json()["code"]) == (400, 400)

    def test_what_is_no_json_is_400_and_megabytes_are_413(self, client: FlaskClient, state: TaskState) -> None:
        task = make_task()
        json_type = {"Content-Type": "application/json"}
        assert client.post(f"/tasks/{task.id}/", data="{", headers=json_type).status_code == 400
        assert client.post(f"/tasks/{task.id}/", data=b"x" * 3_000_000, headers=json_type).status_code == 413

    def test_there_is_no_such_task(self, client: FlaskClient, state: TaskState) -> None:
        answer = client.post("/tasks/5/", json={"command": "subscribe", "webhookHref": WEBHOOK})
        assert (answer.status_code, answer.get_json()["message"]) == (404, "Task not found.")


@pytest.mark.databases("sqlite")
class TestFiles:
    def make_file(self, path: Path | str, **values: Any) -> tuple[int, str]:
        task = make_task()
        file = TaskFile(
            task,
            **{
                "security_tag": "t" * 43,
                "storage_provider": "local_filesystem",
                "file_name": "a.csv",
                "file_storage_data": str(path),
                "file_type": "custom",
                "mimetype": "text/csv",
                **values,
            },
        )
        file.save(commit=True)
        return file.id, f"/files/{file.id}/?file-id={'t' * 43}"

    def test_a_local_file_is_sent_whole_and_in_ranges(
        self, make_client: MakeClient, state: TaskState, tmp_path: Path
    ) -> None:
        (tmp_path / "a.csv").write_bytes(b"0123456789")
        _, href = self.make_file(tmp_path / "a.csv")
        client = make_client(files_root=tmp_path)
        with client.get(href) as whole:
            assert (whole.status_code, whole.data, whole.mimetype) == (200, b"0123456789", "text/csv")
        with client.get(href, headers={"Range": "bytes=2-4"}) as part:
            assert (part.status_code, part.data) == (206, b"234")
            assert part.headers["Content-Range"] == "bytes 2-4/10"
        assert client.get(href, headers={"Range": "bytes=90-"}).status_code == 416

    @pytest.mark.parametrize("tag", ["", "?file-id=wrong", "?file-id=%F0%9F%90%A7", "?file-id=" + "t" * 42])
    def test_without_its_tag_it_is_not_there(
        self, make_client: MakeClient, state: TaskState, tmp_path: Path, tag: str
    ) -> None:
        (tmp_path / "a.csv").write_bytes(b"secret")
        file_id, _ = self.make_file(tmp_path / "a.csv")
        answer = make_client(files_root=tmp_path).get(f"/files/{file_id}/{tag}")
        assert (answer.status_code, answer.get_json()["code"]) == (404, 404)

    @pytest.mark.parametrize("kind", ["outside", "dots", "link", "folder", "gone", "nul", "other provider"])
    def test_nothing_outside_the_root_is_sent(
        self, make_client: MakeClient, state: TaskState, tmp_path: Path, kind: str
    ) -> None:
        root = tmp_path / "root"
        root.mkdir()
        (root / "a.csv").write_bytes(b"a")
        secret = tmp_path / "secret"
        secret.write_bytes(b"secret")
        (root / "link").symlink_to(secret)
        stored: dict[str, Path | str] = {
            "outside": secret,
            "dots": f"{root}/../secret",
            "link": root / "link",
            "folder": root,
            "gone": root / "gone",
            "nul": root / "a.csv",
            "other provider": root / "a.csv",
        }
        provider = "minio" if kind in {"other provider", "nul"} else "local_filesystem"
        _, href = self.make_file(stored[kind], storage_provider=provider)
        assert make_client(files_root=root).get(href).status_code == 404
        assert make_client().get(href).status_code == 404

    def test_a_file_cannot_act_as_a_page_of_this_server(
        self, make_client: MakeClient, state: TaskState, tmp_path: Path
    ) -> None:
        (tmp_path / "a.html").write_text("<script>alert(1)</script>")
        _, href = self.make_file(tmp_path / "a.html", mimetype="text/html; x=<y>", file_name='a"b/c.html')
        with make_client(files_root=tmp_path).get(href) as sent:
            assert sent.status_code == 200
            assert sent.headers["Content-Security-Policy"].startswith("sandbox;")
            assert sent.headers["X-Content-Type-Options"] == "nosniff"
            assert sent.mimetype == "application/octet-stream"


@pytest.mark.databases("sqlite")
class TestAccess:
    def test_nothing_is_public_by_default(self, state: TaskState) -> None:
        task = make_task()
        web = Flask(__name__)
        web.register_blueprint(task_blueprint(state))
        client = web.test_client()
        assert client.get(f"/tasks/{task.id}/").status_code == 403
        assert client.post(f"/tasks/{task.id}/", json={}).status_code == 403

    def test_who_may_read_may_not_change_for_that(self, make_client: MakeClient, state: TaskState) -> None:
        task = make_task()
        client = make_client(may_change=lambda: False)
        assert client.get(f"/tasks/{task.id}/").status_code == 200
        told = {"command": "subscribe", "webhookHref": WEBHOOK}
        assert client.post(f"/tasks/{task.id}/", json=told).status_code == 403
        assert subscriptions(task) == []

    def test_the_host_may_send_people_to_its_login(self, make_client: MakeClient, state: TaskState) -> None:
        task = make_task()
        client = make_client(may_read=lambda: redirect("/login"))
        answer = client.get(f"/tasks/{task.id}/")
        assert (answer.status_code, answer.headers["Location"]) == (302, "/login")

    @pytest.mark.parametrize(
        "headers",
        [
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
            {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost.evil.example"},
        ],
    )
    def test_a_page_of_another_site_changes_nothing(
        self, client: FlaskClient, state: TaskState, headers: dict[str, str]
    ) -> None:
        task = make_task()
        told = {"command": "subscribe", "webhookHref": WEBHOOK}
        assert client.post(f"/tasks/{task.id}/", json=told, headers=headers).status_code == 403
        assert subscriptions(task) == []

    @pytest.mark.parametrize("headers", [{"Origin": "http://localhost"}, {"Sec-Fetch-Site": "same-origin"}, {}])
    def test_own_pages_and_programs_may(self, client: FlaskClient, state: TaskState, headers: dict[str, str]) -> None:
        task = make_task()
        told = {"command": "subscribe", "webhookHref": WEBHOOK}
        assert client.post(f"/tasks/{task.id}/", json=told, headers=headers).status_code == 200


def test_a_database_that_is_away_is_503_with_a_time_to_come_back(tmp_path: Path) -> None:
    away = TaskState(Celery("away", broker="memory://"), database_url=f"sqlite:///{tmp_path}/no/such/folder.db")
    web = Flask(__name__)
    web.register_blueprint(task_blueprint(away, may_read=lambda: True))
    answer = web.test_client().get("/tasks/1/")
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert str(tmp_path) not in answer.text
    away.close()
