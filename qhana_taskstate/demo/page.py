"""The page of the demo: all tasks, and a form for the answer that one of them waits for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from flask import Flask, redirect, render_template_string, request
from werkzeug.serving import WSGIRequestHandler, make_server

from qhana_taskstate import ProcessingTask, StepNotOpenError, TaskFinishedError, taskstate
from qhana_taskstate.web.serving.application import create_app

from . import jobs, plugin

#: Where the step of the demo is answered.
STEP_PATH = f"/demo/<int:task_id>/{plugin.STEP}/ui/"

_FORM = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>How many clusters?</title>
<link rel="stylesheet" href="/taskstate-static/taskstate.css">
</head>
<body>
<main>
<section class="login">
  <h1>How many clusters?</h1>
  <p class="note">Task {{ task.id }}, {{ task.task_name }}: a number from 2 to {{ most }}.</p>
  <form method="post">
    <label for="k">Clusters</label>
    <input id="k" name="k" type="number" min="2" max="{{ most }}" value="{{ default }}" required>
    <button>Go on</button>
  </form>
</section>
</main>
</body>
</html>
"""


class _Quiet(WSGIRequestHandler):
    """Writes no line for each request: the screen belongs to the demo."""

    def log(self, type: str, message: str, *args: Any) -> None:
        """Write nothing."""


@contextmanager
def served(port: int) -> Iterator[str]:
    """Serve the page while the block runs.

    Args:
        port: Where to listen, on loopback.

    Yields:
        Its address.

    Raises:
        OSError: If the port is taken.
    """
    app = create_app(taskstate)
    _add_form(app)
    server = make_server("127.0.0.1", port, app, threaded=True, request_handler=_Quiet)
    server.daemon_threads = True  # type: ignore[attr-defined]  # of the threaded server that this is
    thread = threading.Thread(target=server.serve_forever, name="demo-page", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.shutdown()
        server.server_close()


def _add_form(app: Flask) -> None:
    def ask(task_id: int) -> Any:
        task = ProcessingTask.get_by_id(task_id)
        if task is None or "entities" not in task.data:
            return redirect("/", 303)
        most = int(task.data["entities"]) - 1
        given = request.form.get("k", "")
        own = request.headers.get("Sec-Fetch-Site") in {"same-origin", None}
        if own and given.isascii() and given.isdigit() and 2 <= int(given[:9]) <= most:
            # A second click, or somebody at the terminal was quicker.
            with suppress(StepNotOpenError, TaskFinishedError):
                jobs.answer(task_id, int(given))
            return redirect(f"/tasks/{task_id}/page", 303)
        return render_template_string(_FORM, task=task, most=most, default=jobs.DEFAULT_K)

    app.add_url_rule(STEP_PATH, "demo_step", ask, methods=["GET", "POST"])
