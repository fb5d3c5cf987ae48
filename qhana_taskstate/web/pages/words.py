"""How the pages say things: kinds of tasks, spans of time, numbers, logs without terminal colours. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from ...reading.rows.activity import ActivityWord
from ...reading.rows.views import ProgressView, TaskView
from ...reading.words import visible
from ...states import ERROR_WORDS, ExecutionState, TaskStatus

#: Escape sequences that steer a terminal: CSI (colours, cursor), OSC (titles, links), and the short ones.
_ESCAPES: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")

#: Below this share of the way an estimate would say nothing.
_LEAST_SHARE: Final = 0.02

_KINDS: Final = {
    ActivityWord.RUNNING: ("running", "Running"),
    ActivityWord.QUEUED: ("queued", "Queued"),
    ActivityWord.DELAYED: ("queued", "Starts later"),
    ActivityWord.RETRYING: ("retrying", "Will be tried again"),
    ActivityWord.SUBMITTING: ("queued", "Being sent"),
    ActivityWord.WAITING: ("waiting", "Waits for you"),
    ActivityWord.SILENT: ("silent", "No sign of life"),
    ActivityWord.PARKED: ("idle", "Parked"),
    ActivityWord.OPEN_ENDED: ("idle", "Open-ended"),
    ActivityWord.IDLE: ("idle", "Idle"),
    ActivityWord.UNTRACKED: ("idle", "Not tracked"),
}

_EXECUTION_KINDS: Final = {
    ExecutionState.QUEUED: "queued",
    ExecutionState.RUNNING: "running",
    ExecutionState.SUCCESS: "succeeded",
    ExecutionState.RETRY: "retrying",
    ExecutionState.IGNORED: "idle",
}


@dataclass(frozen=True, slots=True)
class Kind:
    """What a task or an execution looks like on a page.

    Attributes:
        name: Class of its colours: running, queued, retrying, waiting, silent, idle, succeeded or failed.
        label: For people.
    """

    name: str
    label: str


def kind_of(task: TaskView) -> Kind:
    """Return what a task looks like."""
    if task.finished:
        if task.status == TaskStatus.SUCCESS:
            return Kind("succeeded", "Succeeded")
        return Kind("failed", "Failed") if task.status in ERROR_WORDS else Kind("idle", visible(task.status))
    return Kind(*_KINDS.get(task.activity.word, ("idle", "Pending")))


def kind_of_execution(state: str) -> str:
    """Return what an execution in a state looks like."""
    return _EXECUTION_KINDS.get(ExecutionState(state), "failed") if state in set(ExecutionState) else "idle"


def rest_seconds(task: TaskView, moment: datetime) -> float | None:
    """Estimate how long a task will still run if it goes on as it has; None where that would be a guess.

    Args:
        task: The task.
        moment: Now, aware.
    """
    if task.finished or task.progress is None or task.activity.word != ActivityWord.RUNNING:
        return None
    share, seconds = task.progress.share, task.seconds(moment)
    if seconds is None or not _LEAST_SHARE <= share < 1:
        return None
    return seconds * (1 - share) / share


def span(seconds: float) -> str:
    """Say a span of time in one unit, or two where one is rough."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min" if minutes >= 10 else f"{minutes} min {int(seconds % 60)} s"
    hours = minutes // 60
    if hours < 48:
        return f"{hours} h {minutes % 60} min" if hours < 10 else f"{hours} h"
    return f"{hours // 24} days"


def ago(moment: datetime, now: datetime) -> str:
    """Say how long ago a moment was."""
    seconds = max(0.0, (now - moment).total_seconds())
    if seconds < 60:
        return "just now" if seconds < 5 else f"{seconds:.0f} s ago"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min ago"
    return f"{minutes // 60} h ago" if minutes < 2880 else f"{minutes // 1440} days ago"


def utc(moment: datetime) -> str:
    """Say a moment in UTC; a script puts the reader's own time in its place."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def number(value: float) -> str:
    """Write a number for people."""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}".rstrip("0").rstrip(".")


def progress(its: ProgressView) -> str:
    """Say how far something has come: `60 %`, or `3 of 12 rows`."""
    if its.unit == "%" and its.start == 0 and its.target == 100:
        return f"{number(its.value)} %"
    return f"{number(its.value)} of {number(its.target)} {visible(its.unit)}".rstrip()


def readable(text: str) -> str:
    """Return a log as it is shown: without what steers a terminal, and with other control characters visible."""
    lines = _ESCAPES.sub("", text.replace("\r\n", "\n")).split("\n")
    return "\n".join(visible(line) for line in lines)
