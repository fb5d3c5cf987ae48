"""The command that starts a task: `start`, and how its arguments are read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import click
from celery import Celery
from redis.exceptions import RedisError

from ...broker import doctor_task
from ...context.header import OWN_TASK_PREFIX
from ...errors import ArgumentsError, TaskNotFoundError, TaskStateError
from ...facade import TaskState
from ...plugin.task_class import check_arguments, find_plugin_task
from ...reading.as_json import task_json
from ..context import as_json_option, look_at, may_exist, of_task, taskstate_of
from ..group import Failure, WrongUsage, command, write_error
from ..redaction import without_passwords
from ..text.boards import TroubleBoard
from ..text.printing import print_json
from .tasks import board_of, exit_by_end, watch_tasks

#: Begins of the names of this package's own Celery tasks.
_OUR_TASKS: Final = (OWN_TASK_PREFIX, doctor_task.TASK_NAME)


@command("start")
@click.argument("name")
@click.option(
    "-p", "--param", "parameters", multiple=True, metavar="KEY=VALUE", help="An argument of the task; repeat it."
)
@click.option("--task-name", help="Name of the new task; that of the Celery task by default.")
@click.option("--task", "task_id", type=int, metavar="ID", help="Go on with this task instead of making a new one.")
@click.option("--answers", metavar="STEP", help="Id of the open step of --task that this work answers.")
@click.option("--wait", is_flag=True, help="Watch the task until it has ended; exit code 0 only if as SUCCESS.")
@as_json_option
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
    state = taskstate_of(ctx)
    signature = _signature(state.app, name, arguments)
    if task_id is not None and not may_exist(task_id):
        raise TaskNotFoundError(task_id)
    try:
        started = state.start(signature, task=task_id, task_name=task_name, answers=answers).id
    except (RuntimeError, RedisError) as exc:
        if isinstance(exc, TaskStateError):
            raise
        # What Celery raises when the result backend is away (celery 5.5 to 5.7, `ResultConsumer`).
        raise Failure(without_passwords(ctx, f"{name} could not be sent: {exc}")) from exc
    if not as_json:
        click.echo(f"task {started} was started")
    if wait:
        board = TroubleBoard(write_error) if as_json else board_of(ctx, as_json=False)
        seen = watch_tasks(state, [started], board)
    else:
        seen = look_at(state, [started])
    if as_json:
        print_json(task_json(seen[0]) if seen else {"id": started})
    if wait:
        exit_by_end(ctx, seen, expected=1)


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
        raise WrongUsage(f"a module of the app cannot be imported: {exc}") from exc
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


@command("restart")
@of_task
def restart(ctx: click.Context, state: TaskState, /, task_id: int, as_json: bool, **_: Any) -> None:
    """Start the first work of a task again, as a new task.

    Its plugin task must have been declared with @plugin_task(restartable=True). With --json the new task is printed as
    an object.
    """
    started = state.restart(task_id).id
    if as_json:
        seen = look_at(state, [started])
        print_json(task_json(seen[0]) if seen else {"id": started})
    else:
        click.echo(f"task {started} was started, with the work of task {task_id}")
