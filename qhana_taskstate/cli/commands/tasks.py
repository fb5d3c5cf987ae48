"""Commands that look at tasks: `list`, `show`, `watch` and `wait`."""

from __future__ import annotations

import dataclasses
import re
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

import click
from rich.console import Console

from ...clock import now
from ...errors import TaskNotFoundError
from ...facade import TaskState
from ...ids import LARGEST_ID
from ...reading import tasks
from ...reading.as_json import detail_json, task_json
from ...reading.open_work import runs_anything
from ...reading.rows.views import TaskView
from ...reading.tasks import list_tasks
from ...states import ERROR_WORDS, UNKNOWN, TaskStatus
from ..attendance import Attendance, consumed_queues, waits_long
from ..context import look_at, of_task, with_state
from ..group import Failure, Interrupted, command, write_error
from ..text.boards import Board, JsonBoard, LineBoard, LiveBoard, TroubleBoard, watch
from ..text.printing import painter, print_json, print_lines
from ..text.tables import detail_lines, task_table
from ..text.terminal import terminal_columns, wrapped

_UNITS: Final = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}


_STATUS_WORDS: Final = (*TaskStatus, *sorted(ERROR_WORDS - set(TaskStatus)), UNKNOWN)


@command("list")
@click.option("--status", type=click.Choice(_STATUS_WORDS, case_sensitive=False), help="Only tasks with this status.")
@click.option("--name", help="Only tasks whose name contains this text.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many at most.")
@click.option("--before", type=int, metavar="ID", help="Only tasks with a smaller id: the next page.")
@with_state
def list_(
    ctx: click.Context,
    state: TaskState,
    /,
    status: str | None,
    name: str | None,
    limit: int,
    before: int | None,
    as_json: bool,
    **_: Any,
) -> None:
    """List tasks, newest first.

    With --json an array of objects.
    """
    if before is not None:
        before = min(before, LARGEST_ID)
    with state.database.reading() as connection:
        tasks = list_tasks(connection, state.settings, status=status, name=name, before=before, limit=limit)
    tasks = _asked(state, tasks)
    if as_json:
        print_json([task_json(task) for task in tasks])
    elif tasks:
        print_lines(task_table(tasks, now(), columns=terminal_columns(), paint=painter(ctx)))
    else:
        click.echo("no task", err=True)


@command("show")
@click.option("--traceback", "tracebacks", is_flag=True, help="Print the tracebacks of failed executions.")
@click.option("--lines", type=click.IntRange(min=0), default=20, show_default=True, help="Newest log lines to print.")
@click.option("--full", is_flag=True, help="Print the whole log, and every execution though many are alike.")
@of_task
def show(
    ctx: click.Context,
    state: TaskState,
    /,
    task_id: int,
    tracebacks: bool,
    lines: int,
    full: bool,
    as_json: bool,
    **_: Any,
) -> None:
    """Show a task: its row, steps, outputs, links, log, and the tree of its executions.

    A message stands below the one that published it, with its attempts, worker, waiting time and run time. With
    --json an object with all of it, tracebacks too.
    """
    with state.database.reading() as connection:
        detail = tasks.show(connection, state.settings, task_id)
    if detail is None:
        raise TaskNotFoundError(task_id)
    detail = dataclasses.replace(detail, task=_asked(state, [detail.task])[0])
    if as_json:
        print_json(detail_json(detail))
        return
    rendered = detail_lines(
        detail,
        now(),
        log_lines=None if full else lines,
        full=full,
        tracebacks=tracebacks,
        paint=painter(ctx),
    )
    columns = terminal_columns()
    print_lines(rendered if columns is None else wrapped(rendered, columns))


@command("watch")
@click.argument("task_ids", metavar="[ID]...", nargs=-1, type=int)
@click.option("--timeout", type=click.FloatRange(min=0), help="Stop watching after so many seconds; exit code 1.")
@with_state
def watch_(
    ctx: click.Context, state: TaskState, /, task_ids: tuple[int, ...], timeout: float | None, as_json: bool, **_: Any
) -> None:
    """Watch tasks until all of them have ended.

    Without an ID those that have not ended now, of the tasks that the recorder was given. Bars in a terminal, otherwise
    a line for each change; with --json each line is an object. Exit code 0 only if all ended as SUCCESS.
    """
    wanted = list(dict.fromkeys(task_ids))
    if wanted:
        known = {task.id for task in look_at(state, wanted)}
        for task_id in wanted:
            if task_id not in known:
                raise TaskNotFoundError(task_id)
    else:
        with state.database.reading() as connection:
            wanted = tasks.open_task_ids(connection)
        if not wanted:
            click.echo("no task is open", err=True)
            return
    seen = watch_tasks(state, wanted, board_of(ctx, as_json=as_json), timeout=timeout)
    exit_by_end(ctx, seen, expected=len(wanted))


@command("wait")
@click.option("--timeout", type=click.FloatRange(min=0), help="Stop waiting after so many seconds; exit code 1.")
@of_task
def wait(ctx: click.Context, state: TaskState, /, task_id: int, timeout: float | None, as_json: bool, **_: Any) -> None:
    """Wait until a task has ended, and print its status.

    Exit code 0 only if it ended as SUCCESS.
    """
    if not look_at(state, [task_id]):
        raise TaskNotFoundError(task_id)
    seen = watch_tasks(state, [task_id], TroubleBoard(write_error), timeout=timeout)
    if as_json:
        print_json(task_json(seen[0]) if seen else {"id": task_id})
    elif seen:
        click.echo(seen[0].status)
    exit_by_end(ctx, seen, expected=1)


def age(text: str) -> timedelta:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text.strip())
    try:
        if match is not None:
            return float(match[1]) * _UNITS[match[2]]
    except OverflowError:
        pass
    raise click.BadParameter(f"{text!r} is no age; write a number with s, m, h, d or w, such as 30d")


def _attendance(state: TaskState) -> Attendance:
    def works() -> bool:
        with state.database.reading() as connection:
            return runs_anything(connection, now() - timedelta(seconds=state.settings.lost_after_seconds))

    return Attendance(lambda: consumed_queues(state.app), works)


def _asked(state: TaskState, tasks: list[TaskView]) -> list[TaskView]:
    """Return the tasks with a word about missing workers; asks them only if work waits for long."""
    moment = now()
    if not any(waits_long(task, moment) for task in tasks):
        return tasks
    attendance = _attendance(state)
    attendance.ask()
    return attendance.told(tasks, moment)


def watch_tasks(
    state: TaskState, task_ids: Sequence[int], board: Board, *, timeout: float | None = None
) -> list[TaskView]:
    """Watch tasks, and look now and then for lost work, as `TaskState.wait` does."""
    attendance = _attendance(state)
    looked = time.monotonic()

    def look() -> list[TaskView]:
        nonlocal looked
        if time.monotonic() - looked >= state.parts.upkeep.interval_seconds:
            # So that a task whose last worker died ends although no worker is left to see it.
            looked = time.monotonic()
            state.upkeep(force=False)
        return attendance.see(look_at(state, task_ids), now())

    try:
        return watch(look, board, timeout=timeout)
    except KeyboardInterrupt:
        raise Interrupted("stopped watching; the tasks go on") from None


def board_of(ctx: click.Context, *, as_json: bool) -> Board:
    if as_json:
        return JsonBoard(click.echo, task_json)
    if sys.stdout.isatty():
        return LiveBoard(Console(no_color=bool(ctx.obj.no_color)))
    return LineBoard(click.echo)


def exit_by_end(ctx: click.Context, seen: Sequence[TaskView], *, expected: int) -> None:
    if len(seen) < expected:
        raise Failure("a watched task was deleted")
    failed = [task for task in seen if not task.succeeded]
    for task in failed:
        click.echo(f"task {task.id} ended as {task.status}; its history: taskstate show {task.id}", err=True)
    if failed:
        ctx.exit(Failure.exit_code)
