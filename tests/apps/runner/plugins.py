"""Plugins of the runner, each with one of its eight most complex canvases, in a few lines.

None knows of `qhana_taskstate`. A task with `"hold"` in its data stands still in the middle until a file `go` is there.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from .core import CELERY
from .models import ProcessingTask
from .tasks import add_step, save_task_error, save_task_result

URLS = {"href": "http://localhost/step/", "ui_href": "http://localhost/step/ui/"}


class NotYetError(Exception):
    """What is polled for is not there yet."""


def load(db_id: int) -> Any:
    """Read a task."""
    return ProcessingTask.get_by_id(id_=db_id)  # type: ignore[attr-defined]  # of the one that takes its place


def stand_still(db_id: int) -> None:
    """Say that the middle is reached, and wait there if the task asks for it."""
    folder = Path(os.environ["RUNNER_FOLDER"])
    held = load(db_id).data.get("hold")
    (folder / f"middle-{db_id}").touch()
    while held and not (folder / "go").exists():
        time.sleep(0.05)


def polls_left(db_id: int, count: int = 2) -> bool:
    """Count a look at what is not there at the first ones."""
    seen = Path(os.environ["RUNNER_FOLDER"]) / f"polls-{db_id}"
    with seen.open("a") as file:
        file.write("x")
    return seen.stat().st_size <= count


@CELERY.task(name="plugins.hello", bind=True)
def hello(self: Any, db_id: int) -> str:
    """Greet."""
    return f"hello {load(db_id).parameters}"


@CELERY.task(name="plugins.fail")
def fail(db_id: int) -> str:
    """Fail."""
    raise LookupError(f"nothing for {db_id}")


@CELERY.task(name="plugins.say")
def say(text: str, db_id: int) -> str:
    """Return a text."""
    return text


# 1. Mirrors the steps of a foreign task whenever a webhook says that it changed; replaced by a task with an errback.


@CELERY.task(name="plugins.mirror", bind=True, ignore_result=True)
def mirror(self: Any, db_id: int, foreign_id: int) -> Any:
    """Show the foreign task's newest step as an own one; end with it."""
    own, foreign = load(db_id), load(foreign_id)
    stand_still(db_id)
    if foreign.is_finished:
        following = save_task_result.si(f"the other is {foreign.status}", db_id=db_id)
    elif foreign.steps[-1].cleared:
        own.clear_previous_step(commit=True)
        return None
    else:
        step = foreign.steps[-1]
        following = add_step.si("mirrored", db_id=db_id, step_id=step.step_id, href=step.href, ui_href=step.ui_href)
    following.link_error(save_task_error.s(db_id=db_id))
    return self.replace(following)


# 2. Starts several parts that nobody waits for; the last one is replaced by the chain that ends the task.


@CELERY.task(name="plugins.fan_out", bind=True)
def fan_out(self: Any, db_id: int, count: int) -> None:
    """Start the parts."""
    for number in range(count):
        signature = part.s(db_id=db_id, number=number, count=count)
        signature.link_error(save_task_error.s(db_id=db_id))
        signature.apply_async()


@CELERY.task(name="plugins.part", bind=True)
def part(self: Any, db_id: int, number: int, count: int) -> Any:
    """Do one, and see whether all are done."""
    stand_still(db_id)
    task = load(db_id)
    task.data[f"part {number}"] = number
    task.save(commit=True)
    if sum(key.startswith("part ") for key in load(db_id).data) == count:
        return self.replace(say.s(f"all {count}", db_id=db_id) | save_task_result.s(db_id=db_id))
    return None


# 3. Replaced by a poll for the end of a foreign task, which is replaced by what goes on.


@CELERY.task(name="plugins.watch", bind=True)
def watch(self: Any, db_id: int) -> Any:
    """Go on once the other has ended."""
    return self.replace(monitor.s(db_id=db_id))


@CELERY.task(
    name="plugins.monitor",
    bind=True,
    ignore_result=True,
    autoretry_for=(NotYetError,),
    max_retries=None,
    default_retry_delay=0.1,
)
def monitor(self: Any, db_id: int) -> Any:
    """Poll."""
    if polls_left(db_id):
        raise NotYetError
    stand_still(db_id)
    return self.replace(say.si("watched", db_id=db_id) | save_task_result.s(db_id=db_id))


# 4. Replaced by steps, twice; a later one starts a chain from inside a task, which polls without end.


@CELERY.task(name="plugins.authenticate", bind=True)
def authenticate(self: Any, db_id: int) -> Any:
    """Ask for credentials first, then for a backend, then run."""
    task = load(db_id)
    asked = len(task.steps)
    if asked < 2:
        return self.replace(add_step.si(None, db_id=db_id, step_id=f"ask {asked}", **URLS))
    canvas = poll_job.s(db_id=db_id) | save_task_result.s(db_id=db_id)
    canvas.link_error(save_task_error.s(db_id=db_id))
    canvas.apply_async()
    return None


@CELERY.task(
    name="plugins.poll_job", bind=True, autoretry_for=(NotYetError,), max_retries=None, default_retry_delay=0.1
)
def poll_job(self: Any, db_id: int) -> str:
    """Poll."""
    if polls_left(db_id):
        raise NotYetError
    stand_still(db_id)
    return "the job is done"


# 5. A chain into a poll without end, which is replaced by the end of the task.


@CELERY.task(
    name="plugins.watch_workflow", bind=True, autoretry_for=(NotYetError,), max_retries=None, default_retry_delay=0.1
)
def watch_workflow(self: Any, before: Any, db_id: int) -> Any:
    """Poll, and end."""
    if polls_left(db_id):
        raise NotYetError
    stand_still(db_id)
    return self.replace(save_task_result.s(f"after {before}", db_id=db_id))


# 6. Hands its own errbacks on to what it starts, and mixes two kinds of retries.


@CELERY.task(
    name="plugins.watch_instance", bind=True, autoretry_for=(NotYetError,), max_retries=None, default_retry_delay=0.1
)
def watch_instance(self: Any, db_id: int) -> None:
    """Wait, then start the rest."""
    if polls_left(db_id, 1):
        raise NotYetError
    if polls_left(db_id, 2):
        raise self.retry(countdown=0.1)
    stand_still(db_id)
    following = say.s("copied", db_id=db_id) | save_task_result.s(db_id=db_id)
    for errback in self.request.errbacks or ():
        following.link_error(errback)
    following.apply_async()


# 7. An errback of the new style, called in the process that failed; it starts a task with two errbacks.


@CELERY.task(name="plugins.process_error")
def process_error(request: Any, exc: Any, traceback: Any, external: str) -> None:
    """Tell the outside."""
    telling = tell_outside.s(external=external, message=str(exc))
    telling.link_error(tell_outside.si(external=external, message="it could not be told"))
    telling.link_error(tell_outside.si(external=external, message="unlock"))
    telling.apply_async()


@CELERY.task(name="plugins.tell_outside")
def tell_outside(external: str, message: str) -> None:
    """Write it down."""
    (Path(os.environ["RUNNER_FOLDER"]) / f"told-{external}").write_text(message)


@CELERY.task(name="plugins.instance")
def instance(db_id: int) -> None:
    """Stand still, and fail."""
    stand_still(db_id)
    raise LookupError("the instance is gone")


# 8. Steps without an end that was known before, and a chain of three.


@CELERY.task(name="plugins.classify", bind=True)
def classify(self: Any, db_id: int | str) -> str:
    """Take an answer."""
    stand_still(int(db_id))
    task = load(int(db_id))
    task.data.setdefault("answers", []).append(task.parameters)
    task.save(commit=True)
    return f"took {task.parameters}"
