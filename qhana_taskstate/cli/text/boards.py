"""Watching tasks until they end: live bars, plain lines or JSON lines."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID
from rich.text import Text
from sqlalchemy.exc import InterfaceError, OperationalError

from ...clock import now
from ...errors import DatabaseUnavailableError
from ...reading.rows.activity import ActivityWord
from ...reading.rows.views import TaskView
from ...reading.words import duration, first_line, progress, visible
from ...states import TaskStatus

#: Seconds between two looks.
LOOK_SECONDS: Final = 0.2

#: Seconds for which a database that is away is waited for.
PATIENCE_SECONDS: Final = 30.0

#: Seconds between two lines about a task that only its progress changed.
_LINE_SECONDS: Final = 1.0

_STYLES: Final = {TaskStatus.PENDING.value: "cyan", TaskStatus.SUCCESS.value: "green"}

Look = Callable[[], Sequence[TaskView]]


class Board(Protocol):
    """Where watched tasks are shown."""

    def show(self, tasks: Sequence[TaskView]) -> None:
        """Bring the board up to date."""

    def running(self) -> AbstractContextManager[object]:
        """Return a context in which the board may be used."""


def watch(look: Look, board: Board, *, interval: float = LOOK_SECONDS, timeout: float | None = None) -> list[TaskView]:
    """Show tasks until all have ended.

    Args:
        look: Returns the tasks; one that it leaves out was deleted and is not waited for.
        board: Where to show them.
        interval: Seconds between two looks.
        timeout: Seconds to watch at most; None watches without limit.

    Returns:
        What was seen last.

    Raises:
        TimeoutError: If not all have ended in time.
        DatabaseUnavailableError: If the database stays away for half a minute.
    """
    began = time.monotonic()
    seen_at = began
    with board.running():
        while True:
            try:
                tasks = list(look())
                seen_at = time.monotonic()
            except (DatabaseUnavailableError, OperationalError, InterfaceError):
                # A restart of the database ends nothing of what is watched.
                if time.monotonic() - seen_at > PATIENCE_SECONDS:
                    raise
                time.sleep(interval)
                continue
            board.show(tasks)
            if all(task.finished for task in tasks):
                return tasks
            if timeout is not None and time.monotonic() - began >= timeout:
                left = ", ".join(str(task.id) for task in tasks if not task.finished)
                raise TimeoutError(f"not ended after {timeout:g} s: task {left}")
            time.sleep(interval)


def note(task: TaskView) -> str:
    """Say in a sentence what a task is doing, and why a failed one failed; "" for one that ended well."""
    if task.finished:
        return "" if task.succeeded else visible(task.activity.text)
    told = visible(task.activity.text)
    step = task.waiting_step
    if step is not None and step.ui_href and task.activity.word == ActivityWord.WAITING:
        told += f": {visible(step.ui_href)}"
    return told


def progress_words(task: TaskView) -> str:
    """Say how far a task has come; "" if it did not report."""
    if task.progress is None:
        return ""
    return progress(task.progress.value, task.progress.target, task.progress.unit)


class LiveBoard:
    """One progress bar a task, in a terminal.

    Args:
        console: The terminal.
    """

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            _FieldColumn("title"),
            BarColumn(bar_width=24),
            _FieldColumn("told"),
            _FieldColumn("status"),
            _FieldColumn("note"),
            console=console,
        )
        self._bars: dict[int, TaskID] = {}

    def running(self) -> AbstractContextManager[object]:
        """Keep the bars on the screen; the last state stays there."""
        return self._progress

    def show(self, tasks: Sequence[TaskView]) -> None:
        """Move the bars. One without progress pulses; that of a task that ended well is full."""
        for task in tasks:
            bar = self._bars.get(task.id)
            if bar is None:
                title = Text(f"{task.id} {first_line(task.task_name)}")
                bar = self._progress.add_task("", total=None, title=title, told=Text(), status=Text(), note=Text())
                self._bars[task.id] = bar
            seconds = task.seconds(now())
            took = duration(seconds) if task.finished and seconds is not None else ""
            total, completed = _bar(task)
            self._progress.update(
                bar,
                total=total,
                completed=completed,
                told=Text(progress_words(task)),
                status=Text(task.status, style=_STYLES.get(task.status, "red")),
                # In one line: a bar of several would push others off a small screen.
                note=Text(
                    "  ".join(part for part in (took, note(task)) if part),
                    style="dim",
                    no_wrap=True,
                    overflow="ellipsis",
                ),
            )


class _FieldColumn(ProgressColumn):
    """Shows a `Text` as it is; the column of rich would read a task's name as markup."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def render(self, task: Task) -> Text:
        """Return the text."""
        text: Text = task.fields[self._name]
        return text


def _bar(task: TaskView) -> tuple[float | None, float]:
    if task.progress is not None:
        return 1.0, task.progress.share
    # A bar without a total pulses, which a task that has ended must not do.
    return (1.0, 1.0 if task.succeeded else 0.0) if task.finished else (None, 0.0)


class LineBoard:
    """One line for each change, for logs and pipes.

    Args:
        write: Writes a line.
        interval: Seconds between two lines about a task whose progress alone changes.
    """

    def __init__(self, write: Callable[[str], object], *, interval: float = _LINE_SECONDS) -> None:
        self._write = write
        self._interval = interval
        self._shown: dict[int, tuple[TaskView, float]] = {}

    def running(self) -> AbstractContextManager[object]:
        """Return a context that does nothing."""
        return nullcontext()

    def show(self, tasks: Sequence[TaskView]) -> None:
        """Write a line for each task that changed."""
        moment = time.monotonic()
        for task in tasks:
            before = self._shown.get(task.id)
            if before is None or self._is_due(before, task, moment):
                self._shown[task.id] = (task, moment)
                self._write(self.line(task))

    def _is_due(self, before: tuple[TaskView, float], task: TaskView, moment: float) -> bool:
        shown, at = before
        # Not by the sentence, in which seconds are counted.
        if _standing(shown) != _standing(task):
            return True
        return shown.progress != task.progress and moment - at >= self._interval

    def line(self, task: TaskView) -> str:
        """Render a task."""
        parts = [f"task {task.id}", first_line(task.task_name), task.status, progress_words(task), note(task)]
        seconds = task.seconds(now())
        if task.finished and seconds is not None:
            parts.append(f"took {duration(seconds)}")
        return "  ".join(part for part in parts if part)


def _standing(task: TaskView) -> tuple[object, ...]:
    step = task.waiting_step
    return task.status, task.finished, task.activity.word, task.activity.trouble, None if step is None else step.number


class JsonBoard(LineBoard):
    """One JSON object in a line for each change."""

    def __init__(
        self, write: Callable[[str], object], encode: Callable[[TaskView], dict[str, Any]], *, interval: float = 0.0
    ) -> None:
        super().__init__(write, interval=interval)
        self._encode = encode

    def line(self, task: TaskView) -> str:
        """Render a task as JSON."""
        return json.dumps(self._encode(task))


class TroubleBoard(LineBoard):
    """Only says, once each, why work of a task does not begin; for commands whose output is another."""

    def show(self, tasks: Sequence[TaskView]) -> None:
        """Write a line for each task with a new trouble."""
        for task in tasks:
            before = self._shown.get(task.id)
            trouble = task.activity.trouble
            if trouble and (before is None or before[0].activity.trouble != trouble):
                self._shown[task.id] = (task, 0.0)
                self._write(f"task {task.id}: {note(task)}")
