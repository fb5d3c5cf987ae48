"""Makes a function a tracked Celery task, as `facade.plugin_task` says."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any

from celery import Celery, _state
from celery.local import Proxy

from .. import registry
from .arguments import header_of, own_signature
from .task_class import PluginTask, note_state, resent
from .unit_of_work import with_bookkeeping

logger = logging.getLogger(__name__)


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


def make_plugin_task(function: Callable[..., Any], options: Mapping[str, Any], task_class: type[PluginTask]) -> Any:
    """Make a Celery task of a function, of the current app and of those that come later.

    Args:
        function: As the plugin author wrote it.
        options: Celery's and ours.
        task_class: The class that it gets, mixed into that of the app.

    Returns:
        What stands for the task of the current app, as `shared_task` does.
    """
    bind = bool(options.get("bind"))
    signature = own_signature(function, bind)
    name = options.get("name")

    def register(app: Celery) -> Any:
        body = with_bookkeeping(function)
        base = options.get("base") or app.Task
        if not issubclass(base, task_class):
            base = type("PluginTask", (task_class, base), {"abstract": True, "__module__": base.__module__})
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
