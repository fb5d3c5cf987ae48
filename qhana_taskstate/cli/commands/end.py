"""Commands that end a task: `cancel` and `finish`."""

from __future__ import annotations

from typing import Any

import click

from ...facade import TaskState
from ...states import UNKNOWN, TaskStatus
from ..context import look_at, of_task
from ..group import Failure, command
from ..text.printing import print_json


@command("cancel")
@click.option("--terminate", is_flag=True, help="Also terminate what runs (prefork and gevent pools).")
@click.option("--reason", default="", help="Goes into the log.")
@of_task
def cancel(
    ctx: click.Context, state: TaskState, /, task_id: int, terminate: bool, reason: str, as_json: bool, **_: Any
) -> None:
    """End a task as ERROR, and let workers drop what of it has not begun.

    Exit code 1 if it had already ended.
    """
    cancelled = state.cancel(task_id, terminate=terminate, reason=reason)
    _answer_end(ctx, state, task_id, cancelled, "cancelled", as_json)


@command("finish")
@click.option(
    "--status",
    type=click.Choice([TaskStatus.SUCCESS, TaskStatus.ERROR], case_sensitive=False),
    default=TaskStatus.SUCCESS.value,
    show_default=True,
    help="How it ends.",
)
@click.option("--log", help="A last log entry.")
@of_task
def finish(
    ctx: click.Context, state: TaskState, /, task_id: int, status: str, log: str | None, as_json: bool, **_: Any
) -> None:
    """End a task by hand, whatever of it is open.

    Exit code 1 if it had already ended.
    """
    finished = state.finish(task_id, log=log, status=status)
    _answer_end(ctx, state, task_id, finished, "finished", as_json)


def _answer_end(ctx: click.Context, state: TaskState, task_id: int, changed: bool, verb: str, as_json: bool) -> None:
    seen = look_at(state, [task_id])
    status = seen[0].status if seen else UNKNOWN
    if as_json:
        print_json({"id": task_id, verb: changed, "status": status})
    elif changed:
        click.echo(f"task {task_id} was {verb}")
    else:
        click.echo(f"task {task_id} had already ended as {status}", err=True)
    if not changed:
        ctx.exit(Failure.exit_code)
