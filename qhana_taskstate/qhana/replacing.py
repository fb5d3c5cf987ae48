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
    """Replace the bodies of the host's tasks, and make those that it lacks. Twice is once. The app is final."""
    for name, body in BODIES.items():
        task: Any = app.tasks.get(name)
        if task is None:
            task = app.task(name=name, bind=True, ignore_result=True, shared=False)(_plain(body))
        _replace(task, body)
        # An error handler has something to do after the end of its task.
        task.runs_after_end = body is save_an_error
    for task in list(app.tasks.values()):
        if call.is_caller(task):
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
