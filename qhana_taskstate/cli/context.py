"""Which `TaskState` a command works on, and what it needs of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import click
from celery import Celery
from celery.local import Proxy

from .. import current
from ..database import schema
from ..errors import NotConfiguredError
from ..facade import TaskState
from ..ids import LARGEST_ID
from ..reading import tasks
from ..reading.rows.views import TaskView


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


def app_of(ctx: click.Context) -> Celery:
    app = ctx.obj.app
    return cast(Celery, app._get_current_object() if isinstance(app, Proxy) else app)


def may_exist(task_id: int) -> bool:
    return 0 <= task_id <= LARGEST_ID


def look_at(state: TaskState, task_ids: Sequence[int]) -> list[TaskView]:
    possible = [task_id for task_id in task_ids if may_exist(task_id)]
    with state.database.reading() as connection:
        return tasks.get_tasks(connection, state.settings, possible)
