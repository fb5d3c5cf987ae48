"""Starts work: checks it, commits it, publishes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery import Celery
from celery.canvas import Signature
from sqlalchemy.exc import DBAPIError

from ...database.explain import explain
from ...database.sessions.own_locks import refuse_own_lock
from ...errors import TaskFinishedError
from ...models.task import ProcessingTask
from ...recording.execution_recorder import ExecutionRecorder
from ..subscribing.subscriber import Subscriber, check_subscriber
from .canvas import leaves_of
from .checks import canvas_of, check_answer, check_canvas, parameters_text
from .kept_work import as_kept, may_be_restarted
from .publish import CanvasPublisher, probe_broker
from .registration import Registrar, row_to_continue
from .start_request import StartRequest


def start(
    app: Celery,
    recorder: ExecutionRecorder,
    work: Any,
    *,
    task: ProcessingTask | int | str | None,
    task_name: str | None,
    parameters: Any,
    finishes: bool | None,
    answers: str | int | None,
    subscriber: Subscriber | None,
    options: Mapping[str, Any],
) -> ProcessingTask:
    """See `TaskState.start`."""
    canvas = canvas_of(app, work)
    leaves = list(leaves_of(canvas))
    check_canvas(app, leaves, options)
    request = StartRequest(
        canvas=canvas,
        leaves=leaves,
        task_name=task_name,
        parameters=parameters_text(app, parameters, canvas),
        finishes=finishes,
        answers=answers,
        subscriber=subscriber,
        options=options,
        kept=as_kept(app, canvas, options) if may_be_restarted(app, leaves) else None,
    )
    if subscriber is not None:
        check_subscriber(subscriber, recorder.settings)
    return _start(app, recorder, request, task)


def _start(
    app: Celery, recorder: ExecutionRecorder, request: StartRequest, task: ProcessingTask | int | str | None
) -> ProcessingTask:
    session = recorder.sessions.current
    refuse_own_lock(recorder.database, session)
    try:
        row = row_to_continue(session, task) if task is not None else ProcessingTask(request.name)
        if task is not None and row.is_finished:
            raise TaskFinishedError(row.id, row.status)
        if request.answers is not None:
            check_answer(row, request.answers)
            probe_broker(app)
        registered = Registrar(app, recorder).commit(session, row, request)
    except DBAPIError as exc:
        session.rollback()
        raise explain(recorder.database, exc) from exc
    CanvasPublisher(app, recorder).publish(request, registered)
    if app.conf.task_always_eager:
        session.refresh(row)
    return row


def copy_to_start(app: Celery, work: Any, options: Mapping[str, Any]) -> Signature:
    """Check work that is started later.

    Returns:
        A copy of it, which the caller's changes do not reach.

    Raises:
        ArgumentsError: If it cannot be started.
    """
    canvas = canvas_of(app, work)
    check_canvas(app, list(leaves_of(canvas)), options)
    return canvas
