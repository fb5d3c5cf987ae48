"""`plugin_task`, the decorator, and the class that it gives to plugin tasks: they start as `TaskState` starts work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, overload

from .. import registry
from ..models.task import ProcessingTask
from ..plugin.decorator import make_plugin_task
from ..plugin.startable import StartableTask
from ..plugin.task_class import PluginTask

P = ParamSpec("P")


R = TypeVar("R", covariant=True)


class StartablePluginTask(PluginTask):
    """The class of plugin tasks, whole: with the ways to start one that `TaskState` offers."""

    abstract = True

    def start(self, *args: Any, **kwargs: Any) -> ProcessingTask:
        """Start this task as a new job; takes the function's own arguments only, like `delay`.

        Returns:
            The committed and published `ProcessingTask`.

        Raises:
            ArgumentsError: If the arguments do not fit.
            BrokerUnavailableError: If the message could not be sent; the task has then ended as ERROR.
        """
        task: ProcessingTask = registry.get().start(self.s(*args, **kwargs))
        return task

    def start_on_commit(self, *args: Any, **kwargs: Any) -> ProcessingTask | None:
        """Start this task as a new job once the host's open transaction is committed; at once where there is none.

        See `TaskState.start_on_commit`. Takes the function's own arguments only, like `delay`.

        Returns:
            The task if it was started at once.

        Raises:
            ArgumentsError: If the arguments do not fit.
        """
        task: ProcessingTask | None = registry.get().start_on_commit(self.s(*args, **kwargs))
        return task


@overload
def plugin_task(function: Callable[P, R], /) -> StartableTask[P, R]: ...


@overload
def plugin_task(
    *,
    bind: Literal[True],
    name: str | None = None,
    store_parameters: bool = False,
    resend: bool = False,
    restartable: bool = False,
    **options: Any,
) -> Callable[[Callable[Concatenate[Any, P], R]], StartableTask[P, R]]: ...


@overload
def plugin_task(
    *,
    bind: Literal[False] = False,
    name: str | None = None,
    store_parameters: bool = False,
    resend: bool = False,
    restartable: bool = False,
    **options: Any,
) -> Callable[[Callable[P, R]], StartableTask[P, R]]: ...


def plugin_task(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a Celery task whose executions are tracked. Used like `shared_task`, with or without brackets.

    Args:
        function: The function, when used without brackets.
        options: Celery's options for tasks (`name`, `bind`, `autoretry_for`, …) pass through. Ours:
            `store_parameters=True` lets `start` copy the arguments, as JSON, into `ProcessingTask.parameters`.
            `resend=True` keeps each message, with the arguments in it, until its execution has ended, and sends it
            again if the broker loses it before a worker began it. The process that publishes has to know the task.
            `restartable=True` keeps the first work of a task, with the arguments in it, in a table until the task is
            pruned, so that `taskstate.restart` can start it again; of a canvas it is enough that one member says so.

    Returns:
        The task of the current app, as `shared_task` does.
    """
    if function is not None:
        if not callable(function):
            raise TypeError(f"plugin_task was given {function!r}; pass a name as plugin_task(name={function!r})")
        return make_plugin_task(function, options, StartablePluginTask)
    return lambda function: make_plugin_task(function, options, StartablePluginTask)
