"""The one commit of `start`: task, first message or hold, answered step, subscription."""

from __future__ import annotations

from dataclasses import dataclass

from celery import Celery
from celery.canvas import Signature
from celery.utils import uuid
from sqlalchemy import Connection, inspect
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.orm import Session

from ...broker.routing import queue_for
from ...clock import now
from ...context.execution import Submission
from ...database.faults import is_gone
from ...errors import DuplicateExecutionError, StepNotOpenError, TaskFinishedError, TaskNotFoundError
from ...facts import ExecutionKey, Publication
from ...models.task import ProcessingTask
from ...recording import submissions
from ...recording.execution_recorder import ExecutionRecorder
from ...store.closing import holds
from ...store.executions import registration
from ...store.task import first_work, jobs, outbox
from ..subscribing.subscriptions import subscribe
from .canvas import first_of_one, is_leaf, moment_of
from .start_request import StartRequest


@dataclass(frozen=True, slots=True)
class Registered:
    """Work that is committed and not yet published.

    Attributes:
        submission: Its task, and the message that is registered already.
        hold_id: What keeps the task open while several messages are published, if it is so.
    """

    submission: Submission
    hold_id: str | None


def row_to_continue(session: Session, task: ProcessingTask | int | str) -> ProcessingTask:
    """Return the row of a task that work is started for, read anew in the session.

    Raises:
        TaskNotFoundError: If there is no such task.
    """
    if isinstance(task, ProcessingTask) and (inspect(task).transient or task in session):
        state = inspect(task)
        if state.persistent:
            session.flush()
            try:
                session.refresh(task)
            except InvalidRequestError as exc:
                raise TaskNotFoundError(state.identity and state.identity[0]) from exc
        return task
    # An object of another session is read anew in this one.
    found = ProcessingTask.get_by_id(task.id if isinstance(task, ProcessingTask) else task)
    if found is None:
        raise TaskNotFoundError(task)
    return found


class Registrar:
    """Writes all that must be there before the first message goes out.

    Args:
        app: The Celery app.
        recorder: Where facts go.
    """

    def __init__(self, app: Celery, recorder: ExecutionRecorder) -> None:
        self._app = app
        self._recorder = recorder

    def commit(self, session: Session, row: ProcessingTask, request: StartRequest) -> Registered:
        """Write it in the session, and commit at once; rolls back if that fails."""
        try:
            is_new = not inspect(row).has_identity
            _change_row(session, row, request)
            registered = self._register(session, row, request)
            if request.subscriber is not None:
                subscribe(session, row, request.subscriber, self._recorder.settings, is_new=is_new)
            try:
                session.commit()
            except DBAPIError as exc:
                if is_gone(exc):
                    # Nobody knows whether it was committed; if it was, its messages will not come.
                    submission = registered.submission
                    submissions.withdraw(self._recorder, submission.ref, submission.registered, registered.hold_id)
                raise
        except BaseException:
            session.rollback()
            raise
        return registered

    def _register(self, session: Session, row: ProcessingTask, request: StartRequest) -> Registered:
        job = _take_job(session, row, request)
        connection = session.connection()
        for key in request.chosen_keys:
            if registration.is_registered(connection, row.id, key):
                raise DuplicateExecutionError(
                    f"task {row.id} already has an execution with the Celery id {key.celery_id!r}; choose another id"
                )
        if request.kept is not None:
            first_work.keep_first(connection, row.id, request.kept)
        submission = Submission(job.ref)
        first = self._only_message(request.canvas)
        if first is None:
            return Registered(submission, holds.hold(connection, row.id))
        submission.registered = self._register_first(connection, row.id, first, request)
        return Registered(submission, None)

    def _only_message(self, canvas: Signature) -> Signature | None:
        """Return the signature whose message is the only one that is published, None if several are."""
        if self._app.conf.task_always_eager:
            # Without a broker the members of a chain come one after the other, with nothing open in between.
            return canvas if is_leaf(canvas) else None
        only: Signature | None = first_of_one(canvas)
        return only

    def _register_first(
        self, connection: Connection, task_id: int, first: Signature, request: StartRequest
    ) -> ExecutionKey:
        chosen = (request.options.get("task_id") if is_leaf(request.canvas) else None) or first.options.get("task_id")
        celery_id = chosen or uuid()
        first.set(task_id=celery_id)
        options = {**first.options, **request.message_options}
        key = ExecutionKey(celery_id, int(options.get("retries") or 0))
        queue = None
        if not self._app.conf.task_always_eager:
            queue = queue_for(self._app, str(first.task), first.args, first.kwargs, options)
        publication = Publication(
            key,
            str(first.task),
            None,
            queue,
            now(),
            moment_of(options, "countdown", "eta"),
            expires=moment_of(options, "expires", "expires"),
        )
        seconds = self._recorder.settings.publish_deadline_seconds
        registration.register(connection, task_id, [publication], deadline_seconds=seconds)
        return key


def _change_row(session: Session, row: ProcessingTask, request: StartRequest) -> None:
    if request.answers is not None and not row.clear_previous_step():
        raise StepNotOpenError(row.id, request.answers, "it was answered before")
    if request.task_name is not None:
        row.task_name = request.task_name
    if request.parameters is not None:
        row.parameters = request.parameters
    session.add(row)


def _take_job(session: Session, row: ProcessingTask, request: StartRequest) -> jobs.Job:
    """Write the row, and take up its job.

    Raises:
        TaskFinishedError: If the task has ended.
    """
    is_new = inspect(row).pending
    session.flush()
    connection = session.connection()
    if is_new:
        job = jobs.take_new(connection, row.id, since=row.started_at, finishes=request.finishes)
    else:
        if request.subscriber is not None:
            # Before the job row: see the order of locks in `store`.
            outbox.lock_for_subscription(connection, row.id)
        job = jobs.take_up(connection, row.id, finishes=request.finishes)
    if job.end_status is not None:
        raise TaskFinishedError(row.id, job.end_status)
    return job
