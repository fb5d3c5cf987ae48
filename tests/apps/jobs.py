"""Tasks of every kind that the tests start."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from celery import Task, chain, chord, group, shared_task
from celery.exceptions import Ignore, Reject

from qhana_taskstate import add_log, add_output, plugin_task, report_progress, taskstate, track
from qhana_taskstate.testing.waiting import wait_until


@plugin_task
def say(text: str = "said") -> str:
    """Return a text."""
    return text


@plugin_task(restartable=True)
def repeat(text: str, db_id: int = 0) -> str:
    """Return a text."""
    return text


@plugin_task(restartable=True)
def nothing_with(value: object) -> None:
    """Take a value, and do nothing."""


@plugin_task(restartable=True)
def repeat_id(text: str, db_id: int) -> str:
    """Return a text, and the id that was given or filled in."""
    return f"{text} {db_id}"


@plugin_task(restartable=True, ignore_result=True)
def fail_again(message: str) -> None:
    """Fail."""
    raise ValueError(message)


@plugin_task
def nothing() -> None:
    """Do nothing."""


@plugin_task(ignore_result=True)
def fail(message: str = "on purpose") -> None:
    """Fail."""
    raise ValueError(message)


@plugin_task
def count_rows(rows: int = 5, pause: float = 0.0) -> str:
    """Go through some rows and report how far it is."""
    total = 0
    for row in track(range(rows), unit="rows"):
        time.sleep(pause)
        total += row
    return f"sum {total}"


@plugin_task
def half_way(value: float = 60, pause: float = 0.0) -> None:
    """Report progress and log, and stop there."""
    report_progress(value, target=100, unit="%")
    add_log(f"{value} % done")
    time.sleep(pause)


@plugin_task
def report_as_given(unit: str, line: str, error: str, flushed: str) -> str:
    """Report what is given, wait until the log holds `flushed`, if that is any, and fail with `error`, likewise."""
    task_id = taskstate.current().id
    report_progress(1, target=4, unit=unit)
    add_log(line)
    wait_until("reports were flushed", lambda: flushed in taskstate.describe(task_id)["log"])
    if error:
        raise ValueError(error)
    return "done"


@plugin_task
def log_then_fail() -> None:
    """Report, change data, and fail."""
    task = taskstate.current()
    task.data["lost"] = True
    report_progress(30)
    add_log("kept line")
    raise RuntimeError("after the line")


@plugin_task
def remember(key: str, value: Any) -> str:
    """Change `data` of the current task without committing."""
    taskstate.current().data[key] = value
    return f"remembered {key}"


@plugin_task(bind=True)
def who(self: Any) -> str:
    """Tell the id of the task by way of `self`."""
    return f"task {self.processing_task.id}"


@plugin_task
def with_id(text: str, db_id: int) -> str:
    """Tell the id of the task that was filled in."""
    return f"{text} {db_id}"


@plugin_task
def ask(step: str = "k") -> str:
    """Ask for input."""
    taskstate.current().add_next_step(href=f"http://h/{step}", ui_href=f"http://u/{step}", step_id=step)
    return f"asked for {step}"


@plugin_task
def write_file(folder: str) -> str:
    """Write a file and register it."""
    path = Path(folder) / "out.csv"
    path.write_text("a,b\n")
    add_output(path, file_type="entity/list", mimetype="text/csv")
    return "written"


@plugin_task
def wait_for_file(path: str, seconds: float = 20.0) -> str:
    """Wait until a file exists."""
    deadline = time.monotonic() + seconds
    while not Path(path).exists():
        if time.monotonic() > deadline:
            raise TimeoutError(path)
        time.sleep(0.02)
    return "went on"


@plugin_task
def fail_later(path: str, seconds: float = 20.0) -> str:
    """Wait until a file exists, and fail."""
    wait_for_file.run(path, seconds)
    raise ValueError("on purpose")


@plugin_task(bind=True, max_retries=3, default_retry_delay=0)
def flaky(self: Any, failures: int) -> str:
    """Fail so many times, then succeed."""
    if self.request.retries < failures:
        raise self.retry(exc=ConnectionError(f"attempt {self.request.retries}"), countdown=0)
    return f"worked at attempt {self.request.retries}"


@plugin_task(autoretry_for=(ConnectionError,), max_retries=1, retry_backoff=False, default_retry_delay=0)
def never_works() -> None:
    """Fail at every attempt."""
    raise ConnectionError("no luck")


@plugin_task
def ignored() -> None:
    """Raise Ignore."""
    taskstate.current().data["ignored"] = True
    raise Ignore()


@plugin_task
def rejected() -> None:
    """Raise Reject."""
    raise Reject("unwanted", requeue=False)


@plugin_task(bind=True)
def replaced(self: Any, with_what: str = "chain") -> None:
    """Replace itself."""
    taskstate.current().data["before"] = 1
    canvases: dict[str, Any] = {
        "task": add.si(1, 2),
        "chain": chain(add.si(1, 2), add.s(3)),
        "group": group(add.si(1, 2), add.si(3, 4)),
        "chord": chord([add.si(1, 2), add.si(3, 4)], total.s()),
    }
    raise self.replace(canvases[with_what])


@plugin_task
def spawn(depth: int = 2) -> None:
    """Send further tasks, which send further ones."""
    if depth > 0:
        spawn.delay(depth - 1)
        add.delay(1, depth)


@plugin_task
def start_another(path: str) -> str:
    """Start a separate job, which waits for a file."""
    other = wait_for_file.start(path)
    return f"started {other.id}"


@plugin_task
def call_directly() -> str:
    """Call another plugin task as a function."""
    taskstate.current().data["uncommitted"] = True
    text = say("inner")
    if not taskstate.session.in_transaction() and not taskstate.session.dirty:
        raise AssertionError("the call committed")
    return f"called {text}"


@plugin_task
def number() -> Any:
    """Return something that is no text."""
    return {"n": 1}


@plugin_task
def leave() -> None:
    """Exit the interpreter."""
    sys.exit(3)


@plugin_task
def kill_child() -> None:
    """End the process at once."""
    os._exit(9)


@plugin_task(time_limit=1)
def too_long() -> None:
    """Run into the hard limit."""
    add_log("began")
    time.sleep(30)


@shared_task
def add(x: Any, y: Any = 0) -> Any:
    """No plugin task: add."""
    return x + y


@shared_task
def total(values: list[Any]) -> Any:
    """No plugin task: sum."""
    return sum(values)


@shared_task
def boom(*_: Any) -> None:
    """No plugin task: fail."""
    raise LookupError("boom")


@shared_task(bind=True)
def report_by_plain_task(self: Task[Any, Any]) -> None:
    """No plugin task: reports all the same."""
    report_progress(3, target=4, unit="parts")
    add_log("from a plain task")
