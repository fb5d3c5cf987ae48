"""The command line: `celery -A worker taskstate …`, a group of commands on Celery's own."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final, NamedTuple, NoReturn, cast
from urllib.parse import parse_qsl, unquote, urlsplit

import click
from celery import Celery
from celery.local import Proxy
from kombu.exceptions import KombuError
from redis.exceptions import RedisError
from rich.console import Console
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from . import current, deliveries, doctor, probe, reader, schema
from .attendance import Attendance, consumed_queues, waits_long
from .bars import Board, JsonBoard, LineBoard, LiveBoard, TroubleBoard, watch
from .belonging import OWN_TASK_PREFIX
from .clock import now
from .database import database_time
from .errors import (
    ArgumentsError,
    NotConfiguredError,
    SettingsError,
    TaskNotFoundError,
    TaskStateError,
)
from .ids import LARGEST_ID
from .integration import TaskState
from .openwork import runs_anything
from .plugin import check_arguments, find_plugin_task
from .printout import delivery_json, delivery_table, detail_json, detail_lines, task_json, task_table
from .reader import TaskView
from .states import ERROR_WORDS, UNKNOWN, TaskStatus
from .terminal import soften, wrapped

#: The same for deliveries.
_LARGEST_DELIVERY_ID: Final = 2**63 - 1

#: For how long `deliveries` collects what changed since a worker looked, in seconds.
_COLLECT_SECONDS: Final = 5.0

#: Names under which drivers take a password in the query of a URL.
_PASSWORD_KEYS: Final = frozenset({"password", "passwd", "sslpassword", "ssl_keyfile_password"})

_EXIT_CODES: Final = (
    "Exit codes: 0 done, and yes; 1 no, or failed (no such task, already ended, a task ended as ERROR, the database or "
    "the broker cannot be reached); 2 wrong usage or settings; 130 interrupted."
)

_UNITS: Final = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}

#: Begins of the names of this package's own Celery tasks.
_OUR_TASKS: Final = (OWN_TASK_PREFIX, probe.TASK_NAME)

_STATUS_WORDS: Final = (*TaskStatus, *sorted(ERROR_WORDS - set(TaskStatus)), UNKNOWN)


class _Failure(click.ClickException):
    """An error as one line on standard error."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class _WrongUsage(_Failure):
    exit_code = 2


class _Interrupted(_Failure):
    exit_code = 130


class _Extra(NamedTuple):
    name: str
    module: str


#: Commands of extras.
_OF_EXTRAS: Final = {"serve": _Extra("web", "qhana_taskstate.web.command")}


class TaskStateGroup(click.Group):
    """A group whose commands show expected errors as one line without a traceback and without passwords."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted({*super().list_commands(ctx), *_OF_EXTRAS})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; that of an extra is loaded now, since what it needs may not be installed."""
        extra = _OF_EXTRAS.get(cmd_name)
        if extra is None:
            return super().get_command(ctx, cmd_name)
        try:
            return cast(click.Command, getattr(importlib.import_module(extra.module), cmd_name))
        except ImportError as exc:
            missing = f"{cmd_name} needs the extra {extra.name}: pip install 'qhana_taskstate[{extra.name}]' ({exc})"

            def refuse(**_: Any) -> NoReturn:
                raise _WrongUsage(missing)

            return click.Command(
                cmd_name, callback=refuse, help=missing, context_settings={"ignore_unknown_options": True}
            )

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        soften(sys.stdout, sys.stderr)
        try:
            return super().invoke(ctx)
        except (SettingsError, NotConfiguredError, ArgumentsError) as exc:
            raise _WrongUsage(_without_passwords(ctx, str(exc))) from exc
        except (TaskStateError, KombuError, OSError) as exc:
            raise _Failure(_without_passwords(ctx, str(exc))) from exc
        except SQLAlchemyError as exc:
            # Not its own text, which shows the statement and the values in it.
            cause = exc.orig if isinstance(exc, DBAPIError) and exc.orig is not None else exc
            told = f"the database {current.get().database.name} refused: {type(cause).__name__}: {cause}"
            raise _Failure(_without_passwords(ctx, told)) from exc


@click.group("taskstate", cls=TaskStateGroup, epilog=_EXIT_CODES)
def taskstate(**_: Any) -> None:
    """Look at and steer tasks: durable state of whole jobs.

    The database is that of the app's TaskState. Only start, the part of cancel that reaches running workers, and the
    message that wakes the deliveries need the broker.
    """
    # Takes any keyword: options that an app adds to all commands are passed on by some versions (celery 5.5).


def _command(name: str) -> Callable[[Callable[..., Any]], click.Command]:
    return taskstate.command(name, epilog=_EXIT_CODES)


_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")


@_command("upgrade")
@click.pass_context
def upgrade(ctx: click.Context, /, **_: Any) -> None:
    """Make or bring up to date the tables in the database. Safe to repeat, and twice at once."""
    state = _taskstate(ctx, ready=False)
    state.upgrade()
    click.echo(f"the tables in {state.database.name} are up to date")


@_command("list")
@click.option("--status", type=click.Choice(_STATUS_WORDS, case_sensitive=False), help="Only tasks with this status.")
@click.option("--name", help="Only tasks whose name contains this text.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many at most.")
@click.option("--before", type=int, metavar="ID", help="Only tasks with a smaller id: the next page.")
@_as_json
@click.pass_context
def list_(
    ctx: click.Context,
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
    state = _taskstate(ctx)
    if before is not None:
        before = min(before, LARGEST_ID)
    with state.database.reading() as connection:
        tasks = reader.list_tasks(connection, state.settings, status=status, name=name, before=before, limit=limit)
    tasks = _asked(state, tasks)
    if as_json:
        _print_json([task_json(task) for task in tasks])
    elif tasks:
        _print_lines(task_table(tasks, now(), columns=_columns(), paint=_painter(ctx)))
    else:
        click.echo("no task", err=True)


@_command("show")
@click.argument("task_id", metavar="ID", type=int)
@click.option("--traceback", "tracebacks", is_flag=True, help="Print the tracebacks of failed executions.")
@click.option("--lines", type=click.IntRange(min=0), default=20, show_default=True, help="Newest log lines to print.")
@click.option("--full", is_flag=True, help="Print the whole log, and every execution though many are alike.")
@_as_json
@click.pass_context
def show(
    ctx: click.Context, /, task_id: int, tracebacks: bool, lines: int, full: bool, as_json: bool, **_: Any
) -> None:
    """Show a task: its row, steps, outputs, links, log, and the tree of its executions.

    A message stands below the one that published it, with its attempts, worker, waiting time and run time. With
    --json an object with all of it, tracebacks too.
    """
    state = _taskstate(ctx)
    with state.database.reading() as connection:
        detail = reader.show(connection, state.settings, task_id) if _may_exist(task_id) else None
    if detail is None:
        raise TaskNotFoundError(task_id)
    detail = dataclasses.replace(detail, task=_asked(state, [detail.task])[0])
    if as_json:
        _print_json(detail_json(detail))
        return
    rendered = detail_lines(
        detail,
        now(),
        log_lines=None if full else lines,
        full=full,
        tracebacks=tracebacks,
        paint=_painter(ctx),
    )
    columns = _columns()
    _print_lines(rendered if columns is None else wrapped(rendered, columns))


@_command("start")
@click.argument("name")
@click.option(
    "-p", "--param", "parameters", multiple=True, metavar="KEY=VALUE", help="An argument of the task; repeat it."
)
@click.option("--task-name", help="Name of the new task; that of the Celery task by default.")
@click.option("--task", "task_id", type=int, metavar="ID", help="Go on with this task instead of making a new one.")
@click.option("--answers", metavar="STEP", help="Id of the open step of --task that this work answers.")
@click.option("--wait", is_flag=True, help="Watch the task until it has ended; exit code 0 only if as SUCCESS.")
@_as_json
@click.pass_context
def start(
    ctx: click.Context,
    /,
    name: str,
    parameters: tuple[str, ...],
    task_name: str | None,
    task_id: int | None,
    answers: str | None,
    wait: bool,
    as_json: bool,
    **_: Any,
) -> None:
    """Start the Celery task NAME as a task: any of the app, a plugin task or not.

    A VALUE that is JSON is passed as what it says (a number, true, null, a list, an object), anything else as text; a
    text that looks like JSON is written with quotes: --param 'zip="01234"'. With --json the task is printed as an
    object, after its end with --wait.
    """
    arguments = _arguments(parameters)
    if answers is not None and task_id is None:
        raise click.UsageError("--answers needs --task, the task whose step is answered")
    state = _taskstate(ctx)
    signature = _signature(state.app, name, arguments)
    if task_id is not None and not _may_exist(task_id):
        raise TaskNotFoundError(task_id)
    try:
        started = state.start(signature, task=task_id, task_name=task_name, answers=answers).id
    except (RuntimeError, RedisError) as exc:
        if isinstance(exc, TaskStateError):
            raise
        # What Celery raises when the result backend is away (celery 5.5 to 5.7, `ResultConsumer`).
        raise _Failure(_without_passwords(ctx, f"{name} could not be sent: {exc}")) from exc
    if not as_json:
        click.echo(f"task {started} was started")
    if wait:
        board = TroubleBoard(_write_error) if as_json else _board(ctx, as_json=False)
        seen = _watch(state, [started], board)
    else:
        seen = _look(state, [started])
    if as_json:
        _print_json(task_json(seen[0]) if seen else {"id": started})
    if wait:
        _exit_by_end(ctx, seen, expected=1)


@_command("watch")
@click.argument("task_ids", metavar="[ID]...", nargs=-1, type=int)
@click.option("--timeout", type=click.FloatRange(min=0), help="Stop watching after so many seconds; exit code 1.")
@_as_json
@click.pass_context
def watch_(ctx: click.Context, /, task_ids: tuple[int, ...], timeout: float | None, as_json: bool, **_: Any) -> None:
    """Watch tasks until all of them have ended.

    Without an ID those that have not ended now, of the tasks that the tracker was given. Bars in a terminal, otherwise
    a line for each change; with --json each line is an object. Exit code 0 only if all ended as SUCCESS.
    """
    state = _taskstate(ctx)
    wanted = list(dict.fromkeys(task_ids))
    if wanted:
        known = {task.id for task in _look(state, wanted)}
        for task_id in wanted:
            if task_id not in known:
                raise TaskNotFoundError(task_id)
    else:
        with state.database.reading() as connection:
            wanted = reader.open_task_ids(connection)
        if not wanted:
            click.echo("no task is open", err=True)
            return
    seen = _watch(state, wanted, _board(ctx, as_json=as_json), timeout=timeout)
    _exit_by_end(ctx, seen, expected=len(wanted))


@_command("wait")
@click.argument("task_id", metavar="ID", type=int)
@click.option("--timeout", type=click.FloatRange(min=0), help="Stop waiting after so many seconds; exit code 1.")
@_as_json
@click.pass_context
def wait(ctx: click.Context, /, task_id: int, timeout: float | None, as_json: bool, **_: Any) -> None:
    """Wait until a task has ended, and print its status.

    Exit code 0 only if it ended as SUCCESS.
    """
    state = _taskstate(ctx)
    if not _look(state, [task_id]):
        raise TaskNotFoundError(task_id)
    seen = _watch(state, [task_id], TroubleBoard(_write_error), timeout=timeout)
    if as_json:
        _print_json(task_json(seen[0]) if seen else {"id": task_id})
    elif seen:
        click.echo(seen[0].status)
    _exit_by_end(ctx, seen, expected=1)


@_command("cancel")
@click.argument("task_id", metavar="ID", type=int)
@click.option("--terminate", is_flag=True, help="Also terminate what runs (prefork and gevent pools).")
@click.option("--reason", default="", help="Goes into the log.")
@_as_json
@click.pass_context
def cancel(ctx: click.Context, /, task_id: int, terminate: bool, reason: str, as_json: bool, **_: Any) -> None:
    """End a task as ERROR, and let workers drop what of it has not begun.

    Exit code 1 if it had already ended.
    """
    state = _taskstate(ctx)
    if not _may_exist(task_id):
        raise TaskNotFoundError(task_id)
    cancelled = state.cancel(task_id, terminate=terminate, reason=reason)
    _answer_end(ctx, state, task_id, cancelled, "cancelled", as_json)


@_command("finish")
@click.argument("task_id", metavar="ID", type=int)
@click.option(
    "--status",
    type=click.Choice([TaskStatus.SUCCESS, TaskStatus.ERROR], case_sensitive=False),
    default=TaskStatus.SUCCESS.value,
    show_default=True,
    help="How it ends.",
)
@click.option("--log", help="A last log entry.")
@_as_json
@click.pass_context
def finish(ctx: click.Context, /, task_id: int, status: str, log: str | None, as_json: bool, **_: Any) -> None:
    """End a task by hand, whatever of it is open.

    Exit code 1 if it had already ended.
    """
    state = _taskstate(ctx)
    if not _may_exist(task_id):
        raise TaskNotFoundError(task_id)
    finished = state.finish(task_id, log=log, status=status)
    _answer_end(ctx, state, task_id, finished, "finished", as_json)


@_command("upkeep")
@click.option("--once", is_flag=True, help="Look once; one look alone gives nobody up, it only brings rows up to date.")
@click.option("--seconds", type=click.FloatRange(min=0), help="Stop after so many seconds; by default never.")
@_as_json
@click.pass_context
def upkeep(ctx: click.Context, /, once: bool, seconds: float | None, as_json: bool, **_: Any) -> None:
    """Find work that was lost, and settle it, until interrupted. Workers do so by themselves."""
    state = _taskstate(ctx)
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        settled = state.upkeep()
        if settled is None and once:
            raise _Failure("the database cannot be reached now; see the log")
        if settled or once:
            told = dataclasses.asdict(settled) if settled is not None else {}
            _print_json(told) if as_json else _print_lines([", ".join(f"{n} {name}" for name, n in told.items())])
        if once or (deadline is not None and time.monotonic() >= deadline):
            return
        time.sleep(state.parts.upkeep.interval_seconds)


@_command("doctor")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1),
    default=5.0,
    show_default=True,
    help="Seconds to wait for workers, and for the probe.",
)
@click.option("--no-probe", is_flag=True, help="Send no probe canvas through the broker.")
@_as_json
@click.pass_context
def doctor_(ctx: click.Context, /, timeout: float, no_probe: bool, as_json: bool, **_: Any) -> None:
    """Examine the set-up, and say what to change. Exit code 1 if something is wrong.

    It looks at the tables, the clocks of workers and database, time limits, late acknowledgement, who consumes the
    queue of the webhooks, signs of life, late notifications and forgotten tasks, and sends a small canvas through the
    broker and back. With --json an array of objects.
    """
    findings = doctor.Doctor(_taskstate(ctx, ready=False), timeout=timeout, sends_probe=not no_probe).examine()
    told = [
        {name: _without_passwords(ctx, value) if isinstance(value, str) else value for name, value in found.items()}
        for found in map(dataclasses.asdict, findings)
    ]
    if as_json:
        _print_json(told)
    else:
        for found in told:
            click.echo(f"{'ok   ' if found['ok'] else 'WRONG'}  {found['check']}: {found['seen']}")
            if found["advice"]:
                click.echo(f"         {found['advice']}")
    if not all(finding.ok for finding in findings):
        ctx.exit(_Failure.exit_code)


@_command("deliveries")
@click.option("--task", "task_id", type=int, metavar="ID", help="Only those of this task.")
@click.option("--dead", is_flag=True, help="Only those that were given up.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many at most.")
@_as_json
@click.pass_context
def deliveries_(ctx: click.Context, /, task_id: int | None, dead: bool, limit: int, as_json: bool, **_: Any) -> None:
    """List webhook deliveries, newest first: one line for each subscription and event.

    A delivery is due, waiting for its next attempt, calling, told (nothing is owed), or dead (given up). Of URLs
    neither credentials nor values of the query are shown. With --json an array of objects.
    """
    state = _taskstate(ctx)
    found: list[deliveries.DeliveryView] = []
    if task_id is None or _may_exist(task_id):
        # What changed since a worker looked is owed, too.
        state.deliverer.collect(_COLLECT_SECONDS)
        with state.database.reading() as connection:
            moment = database_time(connection)
            found = deliveries.views(connection, moment, task_id=task_id, dead=dead, limit=limit)
    if as_json:
        _print_json([delivery_json(delivery) for delivery in found])
    elif found:
        _print_lines(delivery_table(found, paint=_painter(ctx)))
    else:
        click.echo("no dead delivery" if dead else "no delivery", err=True)


@_command("replay")
@click.argument("delivery_ids", metavar="[DELIVERY_ID]...", nargs=-1, type=int)
@click.option("--all-dead", is_flag=True, help="All deliveries that were given up.")
@click.option("--task", "task_id", type=int, metavar="ID", help="With --all-dead: only those of this task.")
@_as_json
@click.pass_context
def replay(
    ctx: click.Context,
    /,
    delivery_ids: tuple[int, ...],
    all_dead: bool,
    task_id: int | None,
    as_json: bool,
    **_: Any,
) -> None:
    """Make webhook deliveries once more, whatever became of them; what is sent has a new sequence.

    Their hosts are called again at once. Exit code 1 if a named delivery was not replayed, or none was. With --json
    an object: the ids that were replayed, and why others were not.
    """
    if bool(delivery_ids) == all_dead:
        raise click.UsageError("name deliveries, or pass --all-dead; `taskstate deliveries --dead` lists those")
    if task_id is not None and not all_dead:
        raise click.UsageError("--task goes with --all-dead; a delivery's id says its task")
    state = _taskstate(ctx)
    wanted = list(dict.fromkeys(delivery_ids))
    replayed = _replay_dead(state, task_id) if all_dead else _replay(state, wanted)
    refused = _why_not(state, [delivery_id for delivery_id in wanted if delivery_id not in replayed])
    if as_json:
        _print_json({"replayed": replayed, "refused": refused})
    else:
        for delivery_id, reason in refused.items():
            click.echo(f"delivery {delivery_id} was not replayed: {reason}", err=True)
        if replayed:
            click.echo(f"{len(replayed)} {'delivery' if len(replayed) == 1 else 'deliveries'} will be made once more")
        elif all_dead:
            click.echo("no dead delivery", err=True)
    if refused or not replayed:
        ctx.exit(_Failure.exit_code)


def _replay(state: TaskState, delivery_ids: Sequence[int]) -> list[int]:
    possible = [delivery_id for delivery_id in delivery_ids if 0 <= delivery_id <= _LARGEST_DELIVERY_ID]
    return state.tracker.write(
        lambda connection: deliveries.replay(connection, database_time(connection), delivery_ids=possible)
    )


def _replay_dead(state: TaskState, task_id: int | None) -> list[int]:
    if task_id is not None and not _may_exist(task_id):
        return []
    with state.database.reading() as connection:
        # One moment for all, so that what is given up anew meanwhile is not replayed without end.
        moment = database_time(connection)
    replayed: list[int] = []
    while True:
        some = state.tracker.write(lambda connection: deliveries.replay(connection, moment, task_id=task_id))
        if not some:
            return sorted(replayed)
        replayed += some


def _why_not(state: TaskState, delivery_ids: Sequence[int]) -> dict[int, str]:
    """Say of deliveries why they could not be replayed."""
    possible = [delivery_id for delivery_id in delivery_ids if 0 <= delivery_id <= _LARGEST_DELIVERY_ID]
    with state.database.reading() as connection:
        known = {
            delivery.id: delivery
            for delivery in deliveries.views(connection, database_time(connection), delivery_ids=possible)
        }
    reasons = {}
    for delivery_id in delivery_ids:
        delivery = known.get(delivery_id)
        if delivery is None:
            reasons[delivery_id] = "there is no such delivery"
        elif not delivery.webhook_href:
            reasons[delivery_id] = "nobody subscribes there any more"
        else:
            reasons[delivery_id] = "a call of it is under way; try again when that has ended"
    return reasons


@_command("prune")
@click.option(
    "--older-than",
    required=True,
    metavar="AGE",
    callback=lambda _ctx, _param, value: _age(value),
    help="Tasks that ended longer ago go: a number with s, m, h, d or w, such as 30d or 12h.",
)
@click.option("--all", "strangers", is_flag=True, help="Also tasks that nobody gave to the tracker.")
@click.option("--dry-run", is_flag=True, help="Only count what would go.")
@_as_json
@click.pass_context
def prune(
    ctx: click.Context, /, older_than: timedelta, strangers: bool, dry_run: bool, as_json: bool, **_: Any
) -> None:
    """Remove tasks that ended long ago, with all their rows.

    Tasks with an open execution, or whose subscribers have still to be told, stay. Output files are reported to the
    application and not deleted. It works in small steps, waits for nobody, and can be interrupted and repeated.
    """
    state = _taskstate(ctx)
    pruned = state.prune(older_than, strangers=strangers, dry_run=dry_run)
    if as_json:
        _print_json({**dataclasses.asdict(pruned), "dry_run": dry_run})
        return
    told = "would be removed" if dry_run else "removed"
    click.echo(f"{_count(pruned.tasks, 'task')} {told}; {_files(pruned.outputs)} reported to the application")
    reasons = {
        "with an open execution": pruned.open,
        "whose subscribers have still to be told": pruned.pending,
        "that somebody is changing now": pruned.busy,
        "that rows of other tables refer to": pruned.referenced,
    }
    for reason, count in reasons.items():
        if count:
            click.echo(f"{_count(count, 'task')} kept {reason}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _files(number: int) -> str:
    return f"{_count(number, 'output file')} {'is' if number == 1 else 'are'}"


def _age(text: str) -> timedelta:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text.strip())
    try:
        if match is not None:
            return float(match[1]) * _UNITS[match[2]]
    except OverflowError:
        pass
    raise click.BadParameter(f"{text!r} is no age; write a number with s, m, h, d or w, such as 30d")


def _taskstate(ctx: click.Context, *, ready: bool = True) -> TaskState:
    """Return the `TaskState` of the app that the command line names.

    Args:
        ctx: Of the command.
        ready: Check that the schema fits.

    Raises:
        NotConfiguredError: If the app has none.
        SettingsError: If a setting makes no sense.
        SchemaError: If the tables are missing or do not fit.
        DatabaseUnavailableError: If the database cannot be reached.
    """
    app = _app(ctx)
    # Where several apps were made in the process, the one on the command line counts.
    app.set_current()
    try:
        state: TaskState | None = current.get()
    except NotConfiguredError:
        state = None
    if state is None or state.app is not app:
        raise NotConfiguredError(
            f"the Celery app {app.main!r} has no TaskState; name an app that has one (celery -A worker taskstate …), "
            "or make one where the app is: TaskState(app)"
        )
    if ready:
        schema.check(state.database)
    return state


def _app(ctx: click.Context) -> Celery:
    app = ctx.obj.app
    return cast(Celery, app._get_current_object() if isinstance(app, Proxy) else app)


def _may_exist(task_id: int) -> bool:
    return 0 <= task_id <= LARGEST_ID


def _look(state: TaskState, task_ids: Sequence[int]) -> list[TaskView]:
    possible = [task_id for task_id in task_ids if _may_exist(task_id)]
    with state.database.reading() as connection:
        return reader.get_tasks(connection, state.settings, possible)


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


def _watch(state: TaskState, task_ids: Sequence[int], board: Board, *, timeout: float | None = None) -> list[TaskView]:
    """Watch tasks, and look now and then for lost work, as `TaskState.wait` does."""
    attendance = _attendance(state)
    looked = time.monotonic()

    def look() -> list[TaskView]:
        nonlocal looked
        if time.monotonic() - looked >= state.parts.upkeep.interval_seconds:
            # So that a task whose last worker died ends although no worker is left to see it.
            looked = time.monotonic()
            state.upkeep(force=False)
        return attendance.see(_look(state, task_ids), now())

    try:
        return watch(look, board, timeout=timeout)
    except KeyboardInterrupt:
        raise _Interrupted("stopped watching; the tasks go on") from None


def _board(ctx: click.Context, *, as_json: bool) -> Board:
    if as_json:
        return JsonBoard(click.echo, task_json)
    if sys.stdout.isatty():
        return LiveBoard(Console(no_color=bool(ctx.obj.no_color)))
    return LineBoard(click.echo)


def _exit_by_end(ctx: click.Context, seen: Sequence[TaskView], *, expected: int) -> None:
    if len(seen) < expected:
        raise _Failure("a watched task was deleted")
    failed = [task for task in seen if not task.succeeded]
    for task in failed:
        click.echo(f"task {task.id} ended as {task.status}; its history: taskstate show {task.id}", err=True)
    if failed:
        ctx.exit(_Failure.exit_code)


def _answer_end(ctx: click.Context, state: TaskState, task_id: int, changed: bool, verb: str, as_json: bool) -> None:
    seen = _look(state, [task_id])
    status = seen[0].status if seen else UNKNOWN
    if as_json:
        _print_json({"id": task_id, verb: changed, "status": status})
    elif changed:
        click.echo(f"task {task_id} was {verb}")
    else:
        click.echo(f"task {task_id} had already ended as {status}", err=True)
    if not changed:
        ctx.exit(_Failure.exit_code)


def _arguments(texts: Sequence[str]) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise click.BadParameter(f"{key!r} is no KEY=VALUE", param_hint="--param")
        if key in arguments:
            raise click.BadParameter(f"{key!r} is given twice", param_hint="--param")
        arguments[key] = _value(value)
    return arguments


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except ValueError:
        return text


def _no_constant(word: str) -> NoReturn:
    # NaN and Infinity are no JSON, though Python reads them.
    raise ValueError(word)


def _signature(app: Celery, name: str, arguments: dict[str, Any]) -> Any:
    try:
        app.loader.import_default_modules()
    except ImportError as exc:
        raise _WrongUsage(f"a module of the app cannot be imported: {exc}") from exc
    app.finalize()
    plugin = find_plugin_task(app, name)
    if plugin is not None:
        check_arguments(plugin, (), arguments)
        return plugin.s(**arguments)
    if name in app.tasks and not name.startswith(_OUR_TASKS):
        return _signature_of_plain(app, name, arguments)
    known = sorted(other for other in app.tasks if not other.startswith(("celery.", *_OUR_TASKS)))
    told = ", ".join(known) if known else "none; does the app include its modules?"
    raise click.BadParameter(f"there is no task {name!r}; known are: {told}", param_hint="NAME")


def _signature_of_plain(app: Celery, name: str, arguments: dict[str, Any]) -> Any:
    task: Any = app.tasks[name]
    if task.typing:
        try:
            # What Celery itself does when it sends (celery 5.5 to 5.7, `Task.apply_async`).
            task.__header__(**arguments)
        except TypeError as exc:
            raise ArgumentsError(f"arguments do not fit {name}: {exc}") from exc
    return task.s(**arguments)


def _without_passwords(ctx: click.Context, message: str) -> str:
    """Replace the passwords of database, broker and result backend; drivers may put any of them into a message."""
    for password in sorted(_passwords(_app(ctx)), key=len, reverse=True):
        message = message.replace(password, "***")
    return message


def _passwords(app: Celery) -> set[str]:
    urls: list[object] = [app.conf.result_backend]
    configured: Any
    for configured in (app.conf.broker_url, app.conf.broker_read_url, app.conf.broker_write_url):
        urls += configured if isinstance(configured, (list, tuple)) else str(configured or "").split(";")
    # Settings that cannot be read are in no message.
    with suppress(TaskStateError):
        urls.append(current.get().settings.database_url)
    found: set[str] = set()
    for url in urls:
        try:
            parts = urlsplit(str(url or ""))
            passwords = [parts.password, *_values_of(parts.query, _PASSWORD_KEYS)]
        except ValueError:
            continue
        for password in filter(None, passwords):
            found |= {password, unquote(password)}
    return found


def _values_of(query: str, keys: frozenset[str]) -> list[str]:
    return [value for key, value in parse_qsl(query) if key.lower() in keys]


def _painter(ctx: click.Context) -> Callable[[str], str]:
    colours = {TaskStatus.SUCCESS: "green", TaskStatus.PENDING: "cyan", "RUNNING": "cyan", "QUEUED": "cyan"}
    colours |= {"told": "green", "due": "cyan", "calling": "cyan"}
    neutral = {"RETRY", "IGNORED", "waiting"}

    def paint(word: str) -> str:
        colour = "yellow" if word in neutral else colours.get(word, "red")
        return cast(str, ctx.obj.style(word, fg=colour))

    return paint


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))


def _columns() -> int | None:
    """Return the width of the terminal; None if the output goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _print_lines(lines: Sequence[str]) -> None:
    click.echo("\n".join(lines))


def _write_error(line: str) -> None:
    click.echo(line, err=True)
