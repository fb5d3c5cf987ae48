"""The Celery class of plugin tasks: checks arguments, fills in ids, commits before it publishes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, cast

from celery import Celery, Task

from ..context.current import current_execution, current_publisher
from ..context.execution import Publisher
from ..database.sessions.current import current_sessions
from ..errors import ArgumentsError, NotInExecutionError, TaskNotFoundError
from ..models.task import ProcessingTask
from ..recording.exits.decision import stored_failure
from ..store.executions.celery_ids import check_celery_id
from .arguments import TASK_ID_PARAMETER, bind_arguments

#: Names of the tasks declared `resend=True` in this process.
resent: set[str] = set()


class PluginTask(Task):  # type: ignore[type-arg]  # Celery's class takes type arguments at runtime only since 5.7
    """Mixed into the task class of the app for every plugin task."""

    abstract = True

    #: The function as the plugin author wrote it.
    plugin_function: Callable[..., Any]
    #: Its signature without `self`.
    plugin_signature: inspect.Signature
    #: Whether arguments are checked against it before a message is sent (Celery's option `typing`).
    checks_arguments: bool = True
    #: Whether `start` copies the arguments into `ProcessingTask.parameters`.
    store_parameters: bool = False
    #: Whether its messages are kept, to be sent again if the broker loses them.
    resend: bool = False
    #: Whether the first work of a task is kept, to be started again.
    restartable: bool = False
    #: Whether its body runs though its task has ended.
    runs_after_end: bool = False

    @property
    def processing_task(self) -> ProcessingTask:
        """The `ProcessingTask` of the running execution, read anew.

        Raises:
            NotInExecutionError: If no tracked execution runs here.
            TaskNotFoundError: If the row was deleted meanwhile.
        """
        return task_of_execution()

    def apply_async(self, args: Any = None, kwargs: Any = None, *rest: Any, **options: Any) -> Any:
        """As Celery's; fills in the id of the task for a function that declares it.

        Raises:
            ArgumentsError: If a `task_id` is given that no column holds; nothing was sent.
            CeleryIdError: If it has a character that no database takes; nothing was sent.
        """
        if self.checks_arguments:
            bind_arguments(self.plugin_signature, tuple(args or ()), kwargs or {})
        celery_id = rest[0] if rest else options.get("task_id")
        if isinstance(celery_id, str):
            check_celery_id(celery_id)
        publisher = current_publisher()
        if isinstance(publisher, Publisher):
            kwargs = self.with_task_id(args, kwargs, publisher.ref.task_id)
        return super().apply_async(args, kwargs, *rest, **options)

    def with_task_id(self, args: Any, kwargs: Any, task_id: int) -> dict[str, Any]:
        """Return the keywords with `db_id` added if the function declares it and nobody gave it."""
        given = dict(kwargs or {})
        if TASK_ID_PARAMETER not in self.plugin_signature.parameters or TASK_ID_PARAMETER in given:
            return given
        names = list(self.plugin_signature.parameters)
        if len(args or ()) > names.index(TASK_ID_PARAMETER):
            return given
        return {**given, TASK_ID_PARAMETER: task_id}

    def retry(
        self,
        args: Any = None,
        kwargs: Any = None,
        exc: Exception | None = None,
        throw: bool = True,
        eta: Any = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> Any:
        """As Celery's; commits the current session before the next attempt is published, if there is to be one."""
        limit = self.max_retries if max_retries is None else max_retries
        # Past it Celery raises, and the execution fails like any other.
        if limit is None or self.request.retries < limit:
            _commit_before_publish(self)
        return super().retry(args, kwargs, exc, throw, eta, countdown, max_retries, **options)

    def replace(self, sig: Any) -> Any:
        """As Celery's; commits the current session before the replacement is published."""
        _commit_before_publish(self)
        return super().replace(sig)

    def update_state(self, task_id: Any = None, state: Any = None, meta: Any = None, **options: Any) -> None:
        """As Celery's; a failed state of the running execution is its end if it then raises `Ignore`."""
        super().update_state(task_id, state, meta, **options)
        note_state(task_id, state, meta)


def note_state(task_id: Any, state: Any, meta: Any) -> None:
    execution = current_execution()
    if execution is not None and task_id in (None, execution.key.celery_id):
        execution.stored_failure = stored_failure(state, meta)


def _commit_before_publish(task: Task[Any, Any]) -> None:
    execution = current_execution()
    if execution is not None and execution.function is not None and execution.request is task.request_stack.top:
        current_sessions().current.commit()


def task_of_execution() -> ProcessingTask:
    """Return the `ProcessingTask` of the running execution, read anew.

    Raises:
        NotInExecutionError: If no tracked execution runs here.
        TaskNotFoundError: If the row was deleted meanwhile.
    """
    execution = current_execution()
    if execution is None:
        raise NotInExecutionError("no tracked execution runs here; start the task with taskstate.start(...)")
    task = ProcessingTask.get_by_id(execution.ref.task_id)
    if task is None:
        raise TaskNotFoundError(execution.ref.task_id)
    return task


def is_plugin_task(task: object) -> bool:
    """Tell whether a Celery task was made by `plugin_task`."""
    return isinstance(task, PluginTask) and task.plugin_function is not None


def find_plugin_task(app: Celery, name: object) -> PluginTask | None:
    """Return the plugin task of that name which the app knows, else None."""
    task = app.tasks.get(name) if isinstance(name, str) else None
    return cast(PluginTask, task) if is_plugin_task(task) else None


def check_arguments(task: PluginTask, args: Any, kwargs: Any) -> None:
    """Check arguments against the function of a plugin task.

    Raises:
        ArgumentsError: Naming task, what is wrong, and the signature.
    """
    try:
        bind_arguments(task.plugin_signature, tuple(args), kwargs)
    except TypeError as exc:
        raise ArgumentsError(
            f"arguments do not fit {task.name}{task.plugin_signature}: {exc}; nothing was written or sent"
        ) from exc
