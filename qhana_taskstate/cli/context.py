"""Which `TaskState` a command works on, and which task."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, cast

import click
from celery import Celery
from celery.local import Proxy

from .. import registry
from ..database import schema
from ..errors import NotConfiguredError, TaskNotFoundError
from ..facade import TaskState
from ..ids import LARGEST_ID
from ..reading import tasks
from ..reading.rows.views import TaskView

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")


def taskstate_of(ctx: click.Context, *, ready: bool = True) -> TaskState:
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
    app = app_of(ctx)
    # Where several apps were made in the process, the one on the command line counts.
    app.set_current()
    try:
        state: TaskState | None = registry.get()
    except NotConfiguredError:
        state = None
    if state is None or state.app is not app:
        raise NotConfiguredError(
            f"the Celery app {app.main!r} has no TaskState; name an app that has one (celery -A worker taskstate …), "
            "or make one where the app is: TaskState(app)"
        )
    if state.sessions.hosted:
        # The host's belongs to its requests and tasks: outside of them there is none (Flask-SQLAlchemy).
        ctx.with_resource(state.sessions.aside())
    if ready:
        schema.check(state.database)
    return state


def app_of(ctx: click.Context) -> Celery:
    app = ctx.obj.app
    return cast(Celery, app._get_current_object() if isinstance(app, Proxy) else app)


def with_state(function: Callable[..., None]) -> Callable[..., None]:
    """Let a command take `--json`, and pass its function the context and the `TaskState`; below its other options."""

    @click.pass_context
    @functools.wraps(function)
    def run(ctx: click.Context, /, **values: Any) -> None:
        function(ctx, taskstate_of(ctx), **values)

    return as_json_option(run)


def of_task(function: Callable[..., None]) -> Callable[..., None]:
    """As `with_state`, for a command whose argument is the id of a task; refuses what no task can have."""

    @with_state
    @functools.wraps(function)
    def run(ctx: click.Context, state: TaskState, /, task_id: int, **values: Any) -> None:
        if not may_exist(task_id):
            raise TaskNotFoundError(task_id)
        function(ctx, state, task_id=task_id, **values)

    return click.argument("task_id", metavar="ID", type=int)(run)


def may_exist(task_id: int) -> bool:
    return 0 <= task_id <= LARGEST_ID


def look_at(state: TaskState, task_ids: Sequence[int]) -> list[TaskView]:
    possible = [task_id for task_id in task_ids if may_exist(task_id)]
    with state.database.reading() as connection:
        return tasks.get_tasks(connection, state.settings, possible)
