"""`python -m benchmarks.web`: the task resource beside a bare Flask view, and lists of many tasks beside few.

The bare view returns the same bytes after one SELECT of a row by its primary key, on the same server. Needs wrk.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from celery import Celery
from flask import Flask, Response
from sqlalchemy import create_engine, select

from qhana_taskstate import ProcessingTask, TaskState
from qhana_taskstate.database.tables.runner import task_table
from qhana_taskstate.testing import LocalProcess
from qhana_taskstate.testing.server import free_port
from qhana_taskstate.web import task_blueprint
from qhana_taskstate.web.serving.application import create_app

_URL = "BENCHMARK_DATABASE_URL"
_FILE = "BENCHMARK_BODY_FILE"


def ours() -> Flask:
    """Make the application that is measured."""
    return create_app(TaskState(Celery("benchmark", broker="memory://"), database_url=os.environ[_URL]))


def bare() -> Flask:
    """Make the application that it is compared with."""
    app = Flask("bare")
    engine = create_engine(os.environ[_URL])
    body = Path(os.environ[_FILE]).read_bytes()

    @app.get("/tasks/<int:task_id>/")
    def task(task_id: int) -> Response:
        with engine.connect() as connection:
            found = connection.execute(
                select(task_table.c.id, task_table.c.task_status).where(task_table.c.id == task_id)
            )
            found.one()
        return Response(body, mimetype="application/json")

    return app


def main() -> int:
    """Measure, and print what was found.

    Returns:
        The exit code: 1 if a goal was missed.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database-url", help="an empty database (default: a new SQLite file)")
    parser.add_argument("--seconds", type=int, default=3, help="length of one round of wrk (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default: %(default)s)")
    parser.add_argument(
        "--many", type=int, default=5_000_000, help="tasks in the long list, 0 for none (default: %(default)s)"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        url = options.database_url or f"sqlite:///{folder}/taskstate.db"
        good = _compare(folder, url, options.rounds, options.seconds)
        if options.many:
            good = _lists(options.many) and good
    return 0 if good else 1


def _compare(folder: Path, url: str, rounds: int, seconds: int) -> bool:
    with closing(TaskState(Celery("benchmark", broker="memory://"), database_url=url)) as state:
        state.upgrade()
        task = ProcessingTask("clustering", progress_value=100, task_log="\n".join(f"line {n}" for n in range(20)))
        task.save(commit=True)
        task.add_next_step("http://p.example/1/", "http://p.example/1/ui/", "k", commit=True)
        state.finish(task.id)
        path = f"/tasks/{task.id}/"
    os.environ[_URL] = url
    os.environ[_FILE] = str(folder / "body")
    (folder / "body").write_bytes(b"{}")
    with _serving("ours", folder) as href:
        with urllib.request.urlopen(href + path) as answer:  # noqa: S310
            (folder / "body").write_bytes(answer.read())
            etag = answer.headers["ETag"]
        with _serving("bare", folder) as bare_href:
            found: dict[str, list[float]] = {"bare": [], "ours": [], "304": []}
            for _ in range(rounds):
                found["bare"].append(_wrk(bare_href + path, seconds))
                found["ours"].append(_wrk(href + path, seconds))
                found["304"].append(_wrk(href + path, seconds, f"If-None-Match: {etag}"))
    best = {kind: statistics.median(rates) for kind, rates in found.items()}
    whole, unchanged = best["ours"] / best["bare"], best["304"] / best["bare"]
    print(f"requests a second: bare {best['bare']:.0f}, task resource {best['ours']:.0f}, 304 {best['304']:.0f}")
    print(f"of the bare view: {whole:.2f} (goal 0.8), 304 {unchanged:.2f} (goal 0.9)")
    return whole >= 0.8 and unchanged >= 0.9


@contextmanager
def _serving(name: str, folder: Path) -> Iterator[str]:
    port = free_port()
    command = ["-m", "gunicorn", "-k", "gevent", "-b", f"127.0.0.1:{port}", "--log-level", "warning"]
    process = LocalProcess([sys.executable, *command, f"benchmarks.web:{name}()"], log_path=folder / f"{name}.log")
    process.start()
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/tasks/1/", timeout=5):
                    break
            except OSError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.close()


def _wrk(href: str, seconds: int, *headers: str) -> float:
    command = ["wrk", "-t1", "-c8", f"-d{seconds}s", *(word for header in headers for word in ("-H", header)), href]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    if found is None or "Non-2xx" in done.stdout:
        raise RuntimeError(done.stdout)
    return float(found[1])


def _lists(many: int) -> bool:
    """Compare the time of a list's pages, few tasks and many."""
    few = _list_seconds(5000)
    long = _list_seconds(many)
    good = True
    for query, seconds in few.items():
        ratio = long[query] / seconds
        good = good and ratio <= 1.2
        few_ms, many_ms = seconds * 1000, long[query] * 1000
        print(f"/tasks/{query}: {few_ms:.2f} ms of 5,000 tasks, {many_ms:.2f} ms of {many:,}: {ratio:.2f} (goal 1.2)")
    return good


def _list_seconds(tasks: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/taskstate.db"
        with closing(TaskState(Celery("benchmark", broker="memory://"), database_url=url)) as state:
            state.upgrade()
            with state.database.transaction() as connection:
                connection.exec_driver_sql(
                    f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {tasks}) "  # noqa: S608
                    'INSERT INTO "ProcessingTask" (id, task_name, started_at, finished_at, task_status, task_log) '
                    "SELECT i, 'task ' || (i % 7), '2026-01-01 00:00:00', "
                    "CASE WHEN i % 100 THEN '2026-01-01 00:01:00' END, "
                    "CASE WHEN i % 100 THEN CASE WHEN i % 50 = 1 THEN 'ERROR' ELSE 'SUCCESS' END END, '' FROM n"
                )
            app = Flask("lists")
            app.register_blueprint(task_blueprint(state, may_read=lambda: True))
            client = app.test_client()
            found = {}
            for query in ("", "?status=PENDING", "?status=ERROR", "?status=SUCCESS", f"?name=task%20{tasks % 7}"):
                times = []
                for _ in range(30):
                    begun = time.perf_counter()
                    answer = client.get(f"/tasks/{query}")
                    times.append(time.perf_counter() - begun)
                    if len(answer.get_json()["tasks"]) != 50:
                        raise RuntimeError(f"{query}: {answer.text[:200]}")
                found[query if "name" not in query else "?name=..."] = min(times)
            return found


if __name__ == "__main__":
    sys.exit(main())
