"""Checks of what is to be started, before anything is written or sent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from celery import Celery, Task
from celery.canvas import Signature, maybe_signature
from celery.utils import uuid
from kombu import serialization
from kombu.exceptions import EncodeError

from ...errors import ArgumentsError, DuplicateExecutionError, StepNotOpenError
from ...models.task import ProcessingTask
from ...plugin.task_class import check_arguments, find_plugin_task
from ...store.executions.celery_ids import check_celery_id
from .canvas import SIGNATURE_KEYS, Leaf, chosen_ids, is_leaf, named_arguments


def canvas_of(app: Celery, work: Any) -> Signature:
    """Return a copy of the canvas that a caller gave: ids are written into it, and the caller may start it again.

    Raises:
        ArgumentsError: If it is none.
    """
    if isinstance(work, Task):
        work = work.s()
    if not isinstance(work, Signature) and not (isinstance(work, dict) and work.keys() >= SIGNATURE_KEYS):
        raise ArgumentsError(f"{work!r} is no signature; pass for example my_task.s(...) or chain(...)")
    canvas: Signature = maybe_signature(work, app=app).clone()  # type: ignore[union-attr]  # no None here
    return canvas


def check_canvas(app: Celery, leaves: list[Leaf], options: Mapping[str, Any]) -> None:
    """Check the ids, moments and arguments of all messages.

    Raises:
        ArgumentsError: If arguments do not fit a plugin task or cannot be serialised, or options make no sense.
        DuplicateExecutionError: If two messages have the same chosen id.
    """
    _check_options(app, options)
    chosen = chosen_ids(leaves)
    for celery_id in chosen:
        check_celery_id(celery_id)
    if len(set(chosen)) != len(chosen):
        twice = next(celery_id for celery_id in chosen if chosen.count(celery_id) > 1)
        raise DuplicateExecutionError(f"the canvas has the Celery id {twice!r} twice; give each message its own")
    for leaf in leaves:
        _check_options(app, leaf.signature.options)
        _check_arguments(app, leaf, options)


def _check_arguments(app: Celery, leaf: Leaf, options: Mapping[str, Any]) -> None:
    signature = leaf.signature
    name = signature.task
    args, kwargs = tuple(signature.args or ()), dict(signature.kwargs or {})
    task = find_plugin_task(app, name)
    if task is not None and task.checks_arguments:
        check_arguments(task, (None,) * leaf.results + args, kwargs)
    serializer = (
        options.get("serializer")
        or signature.options.get("serializer")
        or getattr(task, "serializer", None)
        or app.conf.task_serializer
    )
    try:
        serialization.dumps((args, kwargs), serializer)
    except (EncodeError, TypeError, ValueError) as exc:
        raise ArgumentsError(
            f"arguments for {name} cannot be serialised as {serializer}: {exc}; nothing was written or sent"
        ) from exc


def _check_options(app: Celery, options: Mapping[str, Any]) -> None:
    """Let Celery look at the moments that a message names."""
    moments = {name: options[name] for name in ("countdown", "eta", "expires") if options.get(name) is not None}
    if options.get("task_id") is not None:
        check_celery_id(options["task_id"])
    if not moments:
        return
    try:
        app.amqp.as_task_v2(uuid(), "check", (), {}, **moments)
    except Exception as exc:
        raise ArgumentsError(f"options {moments!r} make no sense: {exc}; nothing was written or sent") from exc


def parameters_text(app: Celery, parameters: Any, canvas: Signature) -> str | None:
    """Return what is stored as the parameters of the task, None to store nothing.

    Raises:
        ArgumentsError: If they cannot be written as JSON.
    """
    if parameters is None:
        task = find_plugin_task(app, canvas.task) if is_leaf(canvas) else None
        if task is None or not task.store_parameters:
            return None
        parameters = named_arguments(task, canvas)
    if isinstance(parameters, str):
        return parameters
    try:
        return json.dumps(parameters, allow_nan=False)
    except (TypeError, ValueError) as exc:
        raise ArgumentsError(f"parameters cannot be written as JSON: {exc}; pass a text or JSON values") from exc


def check_answer(row: ProcessingTask, answers: str | int) -> None:
    """Check that the newest step of a task is the one that is answered, and open.

    Raises:
        StepNotOpenError: If it is not.
    """
    last = row.steps[-1] if row.steps else None
    if last is None:
        raise StepNotOpenError(row.id, answers, "the task has no step")
    if str(last.step_id) != str(answers):
        raise StepNotOpenError(row.id, answers, f"the newest step is {last.step_id!r}")
    if last.cleared:
        raise StepNotOpenError(row.id, answers, "it was answered before")
