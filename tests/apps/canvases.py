"""Members of canvases that do as they are told, and tasks that send or become further work."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from celery import Task, shared_task
from celery.canvas import maybe_signature
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded

from qhana_taskstate import add_log, plugin_task, taskstate


class Unwritable:
    """A result that no serializer can write."""


class AwkwardError(Exception):
    """An exception that cannot be made again from its arguments."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


def do_as_told(task: Any, what: str, path: str = "") -> Any:
    """Do one of the things that a member of a canvas may do.

    Args:
        task: The bound Celery task.
        what: What to do; the `match` below is the list.
        path: A file that tells the first delivery from the second, that is written, or that is waited for.
    """
    match what:
        case "ok":
            return None
        case "raise":
            raise ValueError("on purpose")
        case "raise awkwardly":
            raise AwkwardError("cannot be", "made again")
        case "retry once":
            if task.request.retries < 1:
                raise task.retry(exc=ConnectionError("not yet"), countdown=0)
        case "retry always":
            raise task.retry(exc=ConnectionError(f"attempt {task.request.retries}"), countdown=0)
        case "ignore":
            raise Ignore()
        case "reject":
            raise Reject("unwanted", requeue=False)
        case "reject and requeue once":
            if first_time(path):
                raise Reject("not here", requeue=True)
        case "unwritable result":
            return Unwritable()
        case "cancel":
            raise asyncio.CancelledError("by the loop")
        case "interrupt":
            raise KeyboardInterrupt()
        case "exit":
            sys.exit(3)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "kill once":
            if first_time(path):
                os.kill(os.getpid(), signal.SIGKILL)
        case "sleep":
            Path(path).touch()
            time.sleep(60)
        case "sleep and tidy up":
            try:
                time.sleep(60)
            except SoftTimeLimitExceeded:
                add_log("tidied up in time")
        case "write":
            Path(path).touch()
        case "wait":
            wait_for(path)
        case _:
            raise ValueError(f"unknown order {what!r}")
    return None


def first_time(path: str) -> bool:
    """Tell whether the file was not there yet, and make it."""
    try:
        Path(path).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def wait_for(path: str, seconds: float = 20.0) -> None:
    """Wait until a file exists."""
    deadline = time.monotonic() + seconds
    while not Path(path).exists():
        if time.monotonic() > deadline:
            raise TimeoutError(path)
        time.sleep(0.02)


@plugin_task(bind=True, max_retries=2, default_retry_delay=0)
def member(self: Any, what: str = "ok", path: str = "") -> Any:
    """A plugin task, acknowledged when it is received."""
    return do_as_told(self, what, path)


@plugin_task(bind=True, acks_late=True)
def late(self: Any, what: str = "ok", path: str = "") -> Any:
    """A plugin task, acknowledged at its end; a killed child is its end too."""
    return do_as_told(self, what, path)


@plugin_task(bind=True, acks_late=True, reject_on_worker_lost=True)
def again(self: Any, what: str = "ok", path: str = "") -> Any:
    """A plugin task whose message is delivered again if its child was killed."""
    return do_as_told(self, what, path)


@plugin_task(bind=True, soft_time_limit=1)
def short(self: Any, what: str = "sleep", path: str = "") -> Any:
    """A plugin task with a soft limit of one second."""
    return do_as_told(self, what, path)


@plugin_task(bind=True, time_limit=1)
def strict(self: Any, what: str = "sleep", path: str = "") -> Any:
    """A plugin task with a hard limit of one second."""
    return do_as_told(self, what, path)


@plugin_task(bind=True, acks_late=True, time_limit=1)
def strict_late(self: Any, what: str = "sleep", path: str = "") -> Any:
    """A plugin task with a hard limit of one second, acknowledged at its end."""
    return do_as_told(self, what, path)


@plugin_task(bind=True, max_retries=1, default_retry_delay=0, retry_on_worker_lost=True)
def retrying(self: Any, what: str = "ok", path: str = "") -> Any:
    """A plugin task that the worker tries again if its child was killed (celery 5.7)."""
    return do_as_told(self, what, path)


@shared_task(bind=True, max_retries=2, default_retry_delay=0)
def plain(self: Any, what: str = "ok", path: str = "") -> Any:
    """No plugin task."""
    return do_as_told(self, what, path)


@shared_task
def risky(number: int, other: int = 0) -> int:
    """No plugin task: fails for 3; for `map`, `starmap` and `chunks`."""
    if number == 3:
        raise ValueError("three is too many")
    return number + other


@plugin_task
def send(signatures: list[Any]) -> None:
    """Send signatures and return."""
    for signature in signatures:
        found = maybe_signature(signature, app=taskstate.app)
        assert found is not None
        found.apply_async()


@plugin_task(bind=True)
def become(self: Any, signature: Any) -> None:
    """Replace this task."""
    raise self.replace(maybe_signature(signature, app=self.app))


@plugin_task
def send_detached(path: str) -> None:
    """Send work that does not belong to this task."""
    with taskstate.detached():
        member.delay("wait", path)


@plugin_task
def send_from_thread() -> None:
    """Send work from a raw thread that belongs to this execution."""
    thread = threading.Thread(target=taskstate.bound(member.delay))
    thread.start()
    thread.join()


@plugin_task
def report_to(text: str, db_id: int) -> str:
    """Declares `db_id`, as the tasks of existing plugins do."""
    return f"{text} {db_id}"


@plugin_task
def ask(step: str) -> None:
    """Add a step."""
    taskstate.current().add_next_step(href=f"http://h/{step}", ui_href=f"http://u/{step}", step_id=step)


@plugin_task
def send_what_cannot_be_sent() -> str:
    """Try to send something that no serializer can write, and go on."""
    try:
        member.apply_async(args=("ok", Unwritable()))
    except Exception as exc:
        return f"not sent: {type(exc).__name__}"
    return "sent"


@plugin_task
def change_and_send() -> None:
    """Send work while a change of the task is not committed yet."""
    taskstate.current().data["changed"] = True
    taskstate.session.flush()
    member.delay()
    time.sleep(0.3)


@plugin_task
def start_more() -> None:
    """Start further work for this very task."""
    task = taskstate.current()
    task.data["more"] = True
    taskstate.start(member.s(), task=task)


@plugin_task
def start_another() -> None:
    """Start a separate job that fails."""
    member.start("raise")


class SendsAtItsEnd(Task):  # type: ignore[type-arg]  # generic in the stubs alone
    """Sends work after its result is stored."""

    abstract = True

    def after_return(self, *_: Any) -> None:
        """Send it."""
        time.sleep(0.1)
        member.delay()


@plugin_task(base=SendsAtItsEnd)
def send_at_the_end() -> None:
    """Do nothing; the base class sends."""


@shared_task
def note_error(request: Any = None) -> None:
    """No plugin task: an errback, which gets the failed task's id."""
    add_log("the errback ran")
