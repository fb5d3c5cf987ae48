"""The small applications of the pages for other hosts: FastAPI, Django, scripts."""

from __future__ import annotations

from pathlib import Path

from .conftest import MakeProject
from .readme import blocks_of, file_of


def test_fastapi_starts_tasks_and_awaits_their_ends_and_so_does_a_script(make_project: MakeProject) -> None:
    project = make_project("fastapi")
    project.write("count.py", file_of("script", "count.py"))
    project.make_tables()
    project.start_worker()

    project.run_python("""
from fastapi.testclient import TestClient
from web import web
with TestClient(web) as client:
    started = client.post("/count/", json=["to be", "or not"])
    assert started.status_code == 202, started.text
    number = started.json()["id"]
    assert client.get(f"/tasks/{number}/end/").json() == {"status": "SUCCESS", "log": "4 words"}
    assert client.get(f"/tasks/{number}/").json()["status"] == "SUCCESS"
    assert client.get("/tasks/4711/").status_code == 404
""")

    assert project.run("python", "count.py", "plugin.py").endswith(" words\n")
    (shell,) = [block.code for block in blocks_of("script") if block.role == "shell"]
    assert "SUCCESS  2 of 2 lines" in project.run("bash", "-c", shell)


def test_django_has_task_states_beside_its_models(make_project: MakeProject) -> None:
    project = make_project("django")
    (shell,) = [block.code for block in project.blocks if block.role == "shell"]
    begin, _, worker = shell.partition("celery -A worker worker")
    assert worker.strip().endswith("&")
    project.run("bash", "-euc", begin)
    project.start_worker()

    project.run_python("""
import worker, django
django.setup()
from django.test import Client
client = Client(raise_request_exception=True)
placed = client.post("/place/", {"name": "books"})
assert placed.status_code == 202
number = placed.json()["task"]
ended = worker.taskstate.wait(number, timeout=30)
assert (ended.status, ended.task_log, ended.progress_value) == ("SUCCESS", "books: 3 parcels", 3)
assert client.get(f"/tasks/{number}/").json()["status"] == "SUCCESS"
assert client.post("/place-two/").status_code == 202
assert worker.taskstate.wait(number + 2, timeout=30).status == "SUCCESS"
from shop.models import Order
assert list(Order.objects.values_list("name", "shipped")) == [("books", 3), ("first", 1), ("second", 1)]
""")

    assert Path(project.folder, "shop.sqlite3").exists()
    assert not Path(project.folder, "taskstate.db").exists()
