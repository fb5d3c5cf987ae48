"""The app of the tests that kill workers: everything comes from the environment, and messages come back quickly."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path
from typing import Any

from celery import Celery, group

from qhana_taskstate import TaskState, add_log, plugin_task, report_progress
from qhana_taskstate import taskstate as current_taskstate

app = Celery(
    "crash",
    broker=os.environ["CELERY_BROKER_URL"],
    backend=os.environ.get("CELERY_RESULT_BACKEND"),
    include=["tests.apps.messages"],
)
app.conf.update(
    task_default_queue="crash",
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=1,
    broker_transport_options={
        "visibility_timeout": 2,
        "unacked_restore_interval": 0.5,
        "unacked_restore_throttle": 1,
    },
)
taskstate = TaskState(app, environment=os.environ)


def _wait_for(path: str, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not Path(path).exists():
        if time.monotonic() > deadline:
            raise TimeoutError(path)
        time.sleep(0.02)


def _note(folder: str, name: str) -> None:
    with (Path(folder) / "begun").open("a") as begun:
        begun.write(f"{name}\n")


@plugin_task
def waits(folder: str) -> str:
    """Say that it runs, and wait until it may end."""
    _note(folder, "waits")
    add_log("began")
    _wait_for(f"{folder}/go")
    Path(folder, "ended").touch()
    return "went on"


@plugin_task
def counts(folder: str) -> None:
    """Say that it runs."""
    _note(folder, "counts")


@plugin_task
def lasts(folder: str, seconds: float) -> str:
    """Say that it runs, and end so much later."""
    _note(folder, "lasts")
    add_log("began")
    time.sleep(seconds)
    return "lasted"


@plugin_task(acks_late=True)
def waits_late(folder: str) -> str:
    """As `waits`, and the broker keeps the message until the end."""
    _note(folder, "waits_late")
    _wait_for(f"{folder}/go")
    return "went on"


@plugin_task(acks_late=True, reject_on_worker_lost=True)
def kills_its_child(folder: str) -> None:
    """Kill the process at once, every time."""
    _note(folder, "kills")
    os._exit(9)


@plugin_task
def holds_the_interpreter(folder: str, seconds: float) -> str:
    """Keep every other thread of the process from running, as C code that never lets go does."""
    _note(folder, "holds")
    ctypes.PyDLL(None).usleep(int(seconds * 1_000_000))
    return "let go"


@plugin_task
def keeps_a_write_open(folder: str, seconds: float) -> str:
    """Change something, and commit it much later."""
    current_taskstate.current().data["open"] = True
    current_taskstate.session.flush()
    _note(folder, "keeps")
    time.sleep(seconds)
    return "committed"


@plugin_task
def reports_with_a_write_open(folder: str) -> None:
    """Change something, and report progress and log again and again until it may end."""
    current_taskstate.current().data["open"] = True
    current_taskstate.session.flush()
    _note(folder, "reports")
    for count in range(1000):
        if Path(folder, "go").exists():
            return
        report_progress(count, target=1000)
        add_log(f"turn {count}")
        time.sleep(0.05)


@plugin_task
def publishes_and_dies(folder: str) -> None:
    """Send a child, and die before that is recorded."""
    waits.delay(folder)
    os._exit(9)


@plugin_task
def publishes_and_kills_the_worker(folder: str) -> None:
    """Send a child, and take the whole worker along before that is recorded."""
    waits.delay(folder)
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(30)


class DiesAfterSuccess(app.Task):  # type: ignore[name-defined,misc]  # made by the app
    """Loses its process after its success is stored."""

    abstract = True

    def on_success(self, *_: Any) -> None:
        """Die."""
        os._exit(9)


@plugin_task(base=DiesAfterSuccess)
def dies_after_success() -> str:
    """Succeed, and die then."""
    return "done"


@plugin_task(base=DiesAfterSuccess)
def spawns_and_dies_after_success(folder: str) -> str:
    """Send a child, succeed, and die then."""
    waits.delay(folder)
    return "done"


class KillsTheWorkerAfterSuccess(app.Task):  # type: ignore[name-defined,misc]  # made by the app
    """Takes the whole worker along after its success is stored."""

    abstract = True

    def on_success(self, *_: Any) -> None:
        """Kill it."""
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(30)


@plugin_task(base=KillsTheWorkerAfterSuccess)
def kills_the_worker_after_success() -> None:
    """Succeed, and take the worker along then."""


@plugin_task(acks_late=True, acks_on_failure_or_timeout=False, time_limit=1)
def meets_its_limit(folder: str) -> None:
    """Last longer than allowed, every time."""
    _note(folder, "limit")
    time.sleep(30)


@plugin_task
def nothing_now(result: object) -> None:
    """Do nothing with what came before."""


@plugin_task
def nothing() -> None:
    """Do nothing."""


def start_and_die(count: int, published: int) -> None:
    """Start a group, and die after so many messages; for a process of its own."""
    from celery.signals import after_task_publish

    seen = 0

    def on_publish(**_: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == published:
            os._exit(0)

    after_task_publish.connect(on_publish, weak=False)
    taskstate.start(group([nothing.si() for _ in range(count)]))
