"""What the demo shows: live bars, log lines, a question, and a summary."""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from qhana_taskstate.errors import StepNotOpenError
from qhana_taskstate.events import TaskEvent
from qhana_taskstate.states import TaskStatus
from qhana_taskstate.testing.receiver import Told, WebhookReceiver

from .. import ProcessingTask, taskstate
from ..cli.text.boards import LiveBoard
from ..reading import tasks
from ..reading.words import duration, progress, visible
from . import jobs, plugin
from .jobs import DEFAULT_K, Job

#: Seconds between two looks at the rows.
_LOOK_SECONDS = 0.1
#: How long the last webhooks are waited for, in seconds.
_TOLD_SECONDS = 10.0
#: How many lines of its log are shown of each task at the end.
_LOG_LINES = 3
#: Narrowest terminal in which a table of all that breaks no words.
_TABLE_WIDTH = 110
#: Numbers with so many digits are too large.
_MOST_DIGITS = 10
#: Width where there is no terminal that has one.
_PLAIN_WIDTH = 120


def make_console() -> Console:
    """Return the console for standard output."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_PLAIN_WIDTH)


class Screen:
    """Follows the jobs until they have ended.

    Args:
        console: Where to show them.
        given_answer: The answer for every step; None asks in a terminal, and takes the default elsewhere.
        interactive: Whether somebody is there to be asked.
        receiver: Is told of the jobs.
    """

    def __init__(
        self, console: Console, *, given_answer: int | None, interactive: bool, receiver: WebhookReceiver
    ) -> None:
        self._console = console
        self._receiver = receiver
        self._calls_seen = 0
        self._given_answer = given_answer
        self._interactive = interactive
        self._log_seen: dict[int, int] = {}

    def follow(self, started: Sequence[Job], check: Callable[[], None]) -> None:
        """Show the jobs and answer their steps, until all have ended.

        Args:
            started: The jobs.
            check: Called at each look; raises if it is vain to wait.
        """
        while True:
            # A new one after each question: it draws over as many lines as it drew last, and would draw over that.
            board = LiveBoard(self._console) if self._console.is_terminal else None
            with board.running() if board is not None else nullcontext():
                waiting = self._show_until_somebody_waits(board, started, check)
            if waiting is None:
                return
            # The bars are off the screen now, so that a person can type.
            answer = self._answer(waiting)
            if answer is not None:
                # Somebody may have been quicker on the page.
                with suppress(StepNotOpenError):
                    jobs.answer(waiting.task_id, answer)

    def _show_until_somebody_waits(
        self, board: LiveBoard | None, started: Sequence[Job], check: Callable[[], None]
    ) -> Job | None:
        by_id = {job.task_id: job for job in started}
        while True:
            check()
            with taskstate.database.reading() as connection:
                views = tasks.get_tasks(connection, taskstate.settings, by_id)
            for job in started:
                self._show_log(job.load())
            self._show_calls()
            if board is not None:
                board.show(views)
            if all(view.finished for view in views):
                return None
            waiting = next((view for view in views if view.waiting_step is not None), None)
            if waiting is not None:
                return by_id[waiting.id]
            time.sleep(_LOOK_SECONDS)

    def _show_log(self, task: ProcessingTask) -> None:
        lines = task.task_log.splitlines()
        for line in lines[self._log_seen.get(task.id, 0) :]:
            self._console.print(f"[dim]{task.id} {_safe(task.task_name)}[/]  {_safe(line)}")
        self._log_seen[task.id] = len(lines)

    def _show_calls(self) -> None:
        calls = self._receiver.told()
        for call in calls[self._calls_seen :]:
            self._console.print(f"[dim]{_safe(_words(call))}[/]")
        self._calls_seen = len(calls)

    def hear_ends(self, started: Sequence[Job], check: Callable[[], None]) -> bool:
        """Wait until the receiver was told of the end of every job.

        Args:
            started: Jobs that have ended.
            check: Called at each look; raises if it is vain to wait.

        Returns:
            Whether it was, and whether every call was signed.
        """
        deadline = time.monotonic() + _TOLD_SECONDS
        while True:
            missing = [job for job in started if not self._receiver.told(event=TaskEvent.STATUS, source=job.source)]
            self._show_calls()
            if not missing or time.monotonic() > deadline:
                break
            check()
            time.sleep(_LOOK_SECONDS)
        for job in missing:
            self._console.print(f"[red]no webhook told of the end of task {job.task_id}[/]")
        if self._receiver.refused:
            self._console.print(f"[red]{self._receiver.refused} webhooks had no fitting signature[/]")
        return not missing and not self._receiver.refused

    def _answer(self, job: Job) -> int | None:
        """Return what was answered here; None if it was answered on the page."""
        question = f"task {job.task_id} waits at step '{plugin.STEP}': how many clusters?"
        if self._given_answer is not None or not self._interactive:
            k = DEFAULT_K if self._given_answer is None else self._given_answer
            self._console.print(f"{question} [bold]{k}[/] (answered by itself)")
            return k
        # One less than there are entities, since each cluster is around one of them.
        most = int(job.load().data["entities"]) - 1
        while True:
            self._console.print(f"[bold]{question}[/] [{DEFAULT_K}] ", end="")
            line = self._read_line(job)
            if line is None:
                self._console.print("answered on the page")
                return None
            if not line:
                self._console.print(f"{DEFAULT_K} (nothing was typed)")
                return DEFAULT_K
            typed = line.strip()
            if not typed:
                return DEFAULT_K
            if typed.isascii() and typed.isdigit() and len(typed) < _MOST_DIGITS and 2 <= int(typed) <= most:
                return int(typed)
            self._console.print(f"{_safe(typed)} is not a whole number from 2 to {most}")

    def _read_line(self, job: Job) -> str | None:
        """Return the line that was typed, "" at the end of the input; None once the step was answered elsewhere."""
        while not select.select([sys.stdin], [], [], _LOOK_SECONDS)[0]:
            task = job.load()
            if task.is_finished or not task.has_uncleared_step:
                return None
        return sys.stdin.readline()

    def summarise(self, started: Sequence[Job]) -> bool:
        """Print what became of all tasks: a table, or a few lines each where that would break words.

        Returns:
            Whether every task ended as it should.
        """
        if self._console.width >= _TABLE_WIDTH:
            self._print_table(started)
        else:
            self._print_lines(started)
        return all(job.is_as_expected(job.load()) for job in started)

    def _print_table(self, started: Sequence[Job]) -> None:
        table = Table(title="Tasks", title_justify="left", show_lines=True)
        for heading in ("id", "task", "status", "took", "progress", "outputs", "webhooks", "last log lines"):
            table.add_column(heading, overflow="fold")
        for job in started:
            task = job.load()
            table.add_row(
                str(task.id),
                _safe(task.task_name),
                "\n(".join(_status(job, task).split(" (")),
                _took(task),
                _progress(task),
                "\n".join(_safe(output.file_name) for output in task.outputs),
                "\n".join(self._told(job)),
                "\n".join(_log_lines(task)),
            )
        self._console.print(table)

    def _print_lines(self, started: Sequence[Job]) -> None:
        self._console.print("\n[bold]Tasks[/]")
        for job in started:
            task = job.load()
            head = (str(task.id), _safe(task.task_name), _status(job, task), _took(task), _progress(task))
            self._console.print("  ".join(part for part in head if part))
            outputs = [_safe(output.file_name) for output in task.outputs]
            for name, texts in (("outputs", outputs), ("webhooks", self._told(job))):
                if texts:
                    self._console.print(Padding(f"{name}: {', '.join(texts)}", (0, 0, 0, 4)))
            for line in _log_lines(task):
                self._console.print(Padding(line, (0, 0, 0, 4)))

    def _told(self, job: Job) -> list[str]:
        counts = [(event, len(self._receiver.told(event=event, source=job.source))) for event in TaskEvent]
        return [f"{count} {event}" for event, count in counts if count]


def _log_lines(task: ProcessingTask) -> list[str]:
    return [_safe(line) for line in task.task_log.splitlines()[-_LOG_LINES:]]


def _words(call: Told) -> str:
    """Say what a webhook told; the receiver keeps none whose signature does not fit."""
    task_id = call.message["data"]["task_id"]
    return f"{task_id} webhook: {call.event} {call.sequence}, task is {call.status}, signature ok"


def _safe(text: str) -> str:
    return escape(visible(text))


def _status(job: Job, task: ProcessingTask) -> str:
    colour = "green" if task.is_ok else "red" if task.is_finished else "cyan"
    if not job.is_as_expected(task):
        remark = f" (should be {job.expected})"
    else:
        remark = " (on purpose)" if job.expected is TaskStatus.ERROR else ""
    return f"[{colour}]{_safe(task.status)}[/]{remark}"


def _took(task: ProcessingTask) -> str:
    return duration((task.finished_at - task.started_at).total_seconds()) if task.finished_at is not None else ""


def _progress(task: ProcessingTask) -> str:
    if task.progress_value is None:
        return ""
    return _safe(progress(task.progress_value, task.progress_target, task.progress_unit))
