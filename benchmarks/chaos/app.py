"""What the workers run. Everything comes from the environment; each task notes beside the database what it did."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from celery import Celery, chain, chord, group

from benchmarks.chaos import FOLDER
from benchmarks.chaos.evidence import Notebook
from qhana_taskstate import TaskState, add_log, plugin_task, report_progress
from qhana_taskstate import taskstate as current_taskstate

__all__ = ["app", "chain", "chord", "group", "notebook", "taskstate"]

#: Seconds that a member works, and that one works which reports lines; number of those lines.
_WORK, _TALK, _LINES = 0.03, 1.0, 8

app = Celery("chaos", broker=os.environ["CELERY_BROKER_URL"], backend=os.environ["CELERY_RESULT_BACKEND"])
app.conf.update(
    task_default_queue="chaos",
    task_ignore_result=True,
    result_expires=600,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    worker_prefetch_multiplier=1,
    broker_transport_options={
        "visibility_timeout": 8,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
    },
)
taskstate = TaskState(app, environment=os.environ)
notebook = Notebook(Path(os.environ[FOLDER]))


class PlannedError(Exception):
    """What a plan says that fails."""


def _work(plan: int, node: str, seconds: float = _WORK) -> None:
    notebook.note("begin", plan, node)
    time.sleep(seconds)
    notebook.note("end", plan, node)


@plugin_task(name="chaos.single")
def single(plan: int, node: str) -> None:
    """Work."""
    _work(plan, node)


@plugin_task(name="chaos.kept", ignore_result=False)
def kept(plan: int, node: str) -> str:
    """Work, and leave a result in Celery's result backend."""
    _work(plan, node)
    return "kept"


@plugin_task(name="chaos.late", acks_late=True, reject_on_worker_lost=True)
def late(plan: int, node: str) -> None:
    """Work; the broker keeps the message until the end."""
    _work(plan, node, 0.3)


@plugin_task(name="chaos.talks")
def talks(plan: int, node: str) -> None:
    """Report progress and log lines."""
    notebook.note("begin", plan, node)
    for count in range(_LINES):
        line = f"line {count} of {plan} by {os.getpid()} at {time.monotonic_ns()}"
        add_log(line)
        report_progress(count + 1, target=_LINES, unit="lines")
        notebook.note("line", plan, node, line)
        time.sleep(_TALK / _LINES)
    notebook.note("end", plan, node)


@plugin_task(name="chaos.stores")
def stores(plan: int, node: str) -> str:
    """Change the row itself."""
    notebook.note("begin", plan, node)
    current_taskstate.current().data["stored"] = plan
    time.sleep(_WORK)
    notebook.note("end", plan, node)
    return "stored"


@plugin_task(name="chaos.retries", bind=True, max_retries=3)
def retries(self: Any, plan: int, node: str) -> None:
    """Fail twice and be tried again."""
    notebook.note("begin", plan, node)
    if self.request.retries < 2:
        notebook.note("fail", plan, node)
        raise self.retry(exc=PlannedError("once more"), countdown=0.2)
    notebook.note("end", plan, node)


@plugin_task(name="chaos.replaced", bind=True)
def replaced(self: Any, plan: int, node: str) -> None:
    """Let a chain take the place of this."""
    notebook.note("begin", plan, node)
    notebook.note("end", plan, node)
    raise self.replace(chain(single.si(plan, "b"), single.si(plan, "c")))


@plugin_task(name="chaos.spawns")
def spawns(plan: int, node: str) -> None:
    """Send more work of the same job."""
    notebook.note("begin", plan, node)
    single.delay(plan, "b")
    single.delay(plan, "c")
    notebook.note("end", plan, node)


@plugin_task(name="chaos.asks")
def asks(plan: int, node: str) -> None:
    """Ask the user."""
    notebook.note("begin", plan, node)
    current_taskstate.current().add_next_step(href="http://localhost/", ui_href="http://localhost/", step_id=str(plan))
    notebook.note("end", plan, node)


class Broken(app.Task):  # type: ignore[name-defined,misc]  # made by the app
    """Raises in its hooks too."""

    abstract = True

    def on_failure(self, *_: Any) -> None:
        """Raise."""
        raise RuntimeError("a hook that is broken")

    def after_return(self, *_: Any) -> None:
        """Raise."""
        raise RuntimeError("a hook that is broken")


@plugin_task(name="chaos.fails_twice", base=Broken)
def fails_twice(plan: int, node: str) -> None:
    """Fail, and let the hooks fail."""
    notebook.note("begin", plan, node)
    notebook.note("fail", plan, node)
    raise PlannedError("as planned")


@plugin_task(name="chaos.fails")
def fails(plan: int, node: str) -> None:
    """Fail for good."""
    notebook.note("begin", plan, node)
    notebook.note("fail", plan, node)
    raise PlannedError("as planned")
