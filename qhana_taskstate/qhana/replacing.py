"""Puts our bodies in the place of those of the host's Celery tasks. The task objects stay: modules refer to them."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

from celery import Celery

from . import call
from .helpers import BODIES, save_an_error


def replace_tasks(app: Celery) -> None:
    """Replace the bodies of the host's tasks that Celery has made, and of those that it will make. Twice is once.

    What is declared on an app becomes a task at its first use or when the app is finalised, and may be called before
    the latter: eagerly, by a client.
    """
    registry: Any = app._tasks  # type: ignore[attr-defined]  # `app.tasks` would finalise the app
    if not hasattr(registry.__class__, "replaces_bodies"):
        registry.__class__ = _watched(registry.__class__)
    for task in list(registry.values()):
        _replace_one(task)


def add_missing_tasks(app: Celery) -> None:
    """Make the tasks of the runner that a host lacks. The app is final."""
    for name, body in BODIES.items():
        if name not in app.tasks:
            app.task(name=name, bind=True, ignore_result=True, shared=False)(_plain(body))


@functools.cache
def _watched(kind: Any) -> type:
    """Return the class of a registry of tasks that sees each task as it is registered, however it was made.

    Celery registers a task before anybody can call it, and adds its retries on errors around the body afterwards, or
    has done so before (celery 5.5 to 5.7, `app/base.py`, `app/registry.py`).
    """

    def set_item(registry: Any, name: str, task: Any) -> None:
        kind.__setitem__(registry, name, task)
        _replace_one(task)

    return type(
        kind.__name__,
        (kind,),
        {"__module__": kind.__module__, "__doc__": kind.__doc__, "__setitem__": set_item, "replaces_bodies": True},
    )


def _replace_one(task: Any) -> None:
    body = BODIES.get(task.name)
    if body is not None:
        _replace(task, body)
        # An error handler has something to do after the end of its task.
        task.runs_after_end = body is save_an_error
    elif call.is_caller(task):
        _replace(task, functools.partial(call.call_webhook, _body_of(task)))


def _plain(body: Any) -> Callable[..., Any]:
    """Copy a function, since Celery leaves its marks on what it makes a task of."""
    return types.FunctionType(body.__code__, body.__globals__, body.__name__, body.__defaults__, body.__closure__)


def _body_of(task: Any) -> Callable[..., Any]:
    found: Callable[..., Any] = vars(task).get("_orig_run") or task.run
    return found


def _replace(task: Any, body: Callable[..., Any]) -> None:
    if vars(task).get("has_our_body"):
        return
    task.has_our_body = True
    # What Celery's retries on errors surround is looked up at each call (celery 5.5 to 5.7, `app/autoretry.py`).
    attribute = "_orig_run" if "_orig_run" in vars(task) else "run"
    setattr(task, attribute, types.MethodType(body, task))
