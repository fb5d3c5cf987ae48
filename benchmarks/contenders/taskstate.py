"""Tracked tasks of each kind, from one that says nothing to what plugin tasks do."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from celery import Celery, chord, group

from benchmarks.contenders.configuration import configure
from qhana_taskstate import TaskState, add_log, plugin_task, report_progress

app = configure(Celery("taskstate", broker=os.environ["CELERY_BROKER_URL"], backend=os.environ["CELERY_RESULT_URL"]))
# Deliveries wait in a queue that nobody serves: what is measured is the task that is watched, not the calls.
app.conf.taskstate_webhook_queue = "benchmarks.deliveries"
app.conf.taskstate_public_url = "https://plugin.example/"
taskstate = TaskState(app, environment=os.environ)

#: Where a watched task's subscriber would be.
HOOK = "https://subscriber.example/hook"


@plugin_task(name="taskstate.nothing", ignore_result=True)
def nothing() -> None:
    """Say nothing."""


@plugin_task(name="taskstate.text", ignore_result=True)
def text() -> str:
    """Return a text."""
    return "done"


@plugin_task(name="taskstate.line", ignore_result=True)
def line() -> None:
    """Log one line."""
    add_log("half of it is done")


@plugin_task(name="taskstate.progress", ignore_result=True)
def progress() -> None:
    """Report once."""
    report_progress(50, target=100, unit="%")


@plugin_task(name="taskstate.usual", ignore_result=True)
def usual() -> str:
    """Report once, log once, and return a text, as plugin tasks do."""
    report_progress(50, target=100, unit="%")
    add_log("half of it is done")
    return "done"


@plugin_task(name="taskstate.part", ignore_result=False)
def part() -> int:
    """Be a member of a chord, whose results Celery needs."""
    return 1


@plugin_task(name="taskstate.body", ignore_result=True)
def body(_parts: list[int]) -> str:
    """Be the body of a chord."""
    return "done"


def _single(signature: Callable[[], Any], **options: Any) -> Callable[[int], int]:
    def send(count: int) -> int:
        for _ in range(count):
            taskstate.start(signature(), **options)
        return count

    return send


def _groups(size: int) -> Callable[[int], int]:
    def send(count: int) -> int:
        for _ in range(max(count // size, 1)):
            taskstate.start(group(usual.s() for _ in range(size)))
        return max(count // size, 1) * size

    return send


def _chords(count: int) -> int:
    for _ in range(max(count // 11, 1)):
        taskstate.start(chord([part.s() for _ in range(10)], body.s()))
    return max(count // 11, 1) * 11


def prepare() -> None:
    """Make the tables."""
    taskstate.upgrade()


KINDS: dict[str, Callable[[int], int]] = {
    "nothing": _single(nothing.s),
    "text": _single(text.s),
    "line": _single(line.s),
    "progress": _single(progress.s),
    "usual": _single(usual.s),
    "watched": _single(nothing.s, webhook_href=HOOK),
    "group": _groups(100),
    "group of 1000": _groups(1000),
    "group of 10000": _groups(10_000),
    "chord": _chords,
}
