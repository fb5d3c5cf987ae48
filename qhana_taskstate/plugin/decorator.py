"""`plugin_task`: makes a function a tracked Celery task."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, overload

from celery import Celery, _state
from celery.local import Proxy

from .. import registry
from .arguments import header_of, own_signature
from .startable import StartableTask
from .task_class import PluginTask, note_state, resent
from .unit_of_work import with_bookkeeping

logger = logging.getLogger(__name__)


P = ParamSpec("P")


R = TypeVar("R", covariant=True)


def hear_states(task: Any) -> None:
    """Let a task that is no plugin task, but tracked, tell of the states that its body stores; twice is once."""
    if isinstance(task, PluginTask) or "update_state" in vars(task):
        return
    update_state = task.update_state

    @functools.wraps(update_state)
    def heard(task_id: Any = None, state: Any = None, meta: Any = None, **options: Any) -> None:
        update_state(task_id, state, meta, **options)
        note_state(task_id, state, meta)

    task.update_state = heard


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
        return _make(function, options)
    return lambda function: _make(function, options)


def _make(function: Callable[..., Any], options: dict[str, Any]) -> Any:
    bind = bool(options.get("bind"))
    signature = own_signature(function, bind)
    name = options.get("name")

    def register(app: Celery) -> Any:
        body = with_bookkeeping(function)
        base = options.get("base") or app.Task
        if not issubclass(base, PluginTask):
            base = type("PluginTask", (PluginTask, base), {"abstract": True, "__module__": base.__module__})
        task = app._task_from_fun(
            body,
            **{
                **options,
                "base": base,
                "plugin_function": staticmethod(function),
                "plugin_signature": signature,
                "store_parameters": bool(options.get("store_parameters", False)),
                "resend": bool(options.get("resend", False)),
                "restartable": bool(options.get("restartable", False)),
                "checks_arguments": getattr(app, "strict_typing", True)
                if options.get("typing") is None
                else options["typing"],
                # Celery's own check knows of no `db_id` that is filled in later; ours takes its place.
                "typing": False,
                # From its shape Celery tells how to call the task as an errback (celery 5.7, backends/base.py).
                "__header__": header_of(function, bind),
            },
        )
        if options.get("resend"):
            resent.add(task.name)
        return task

    # As shared_task does (celery 5.5 to 5.7): apps that are finalised later, and those that already are.
    _state.connect_on_app_finalize(register)
    for app in _state._get_active_apps():  # type: ignore[attr-defined]  # not in the stubs
        if app.finalized:
            with app._finalize_mutex:
                register(app)

    def find() -> Any:
        # A thread that did not make the app has no current one, for which Celery puts a default app (celery 5.7).
        mine = _state._tls.current_app  # type: ignore[attr-defined]  # not in the stubs
        state = registry.find()
        app = mine or (_state.get_current_app() if state is None else state.app)
        return app.tasks[name or app.gen_task_name(function.__name__, function.__module__)]

    return Proxy(find)
