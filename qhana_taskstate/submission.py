"""Starting work: check it, commit it, publish it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from celery import Celery, Task
from celery.canvas import Signature, chain, chord, group, maybe_signature
from celery.utils import uuid
from kombu import serialization
from kombu.exceptions import EncodeError, KombuError
from kombu.utils.url import maybe_sanitize_url
from sqlalchemy.orm import Session

from . import store
from .belonging import ExecutionKey, Publication, Submission, TaskRef, submitting
from .errors import (
    ArgumentsError,
    BrokerUnavailableError,
    DuplicateExecutionError,
    SettingsError,
    StepNotOpenError,
    TaskFinishedError,
    TaskNotFoundError,
)
from .models import ProcessingTask, TaskUpdateSubscription
from .plugin import PluginTask, check_arguments, find_plugin_task
from .states import TaskStatus
from .tables import now
from .tracker import Tracker


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscriber:
    """Who is to be told of a task from its start on.

    Attributes:
        webhook_href: Where to call.
        task_href: What the call names as its source; None takes the default.
        event: `status`, `steps`, `details`, or None for all.
    """

    webhook_href: str
    task_href: str | None
    event: str | None


@dataclass(frozen=True, slots=True)
class _Leaf:
    """One signature of a canvas with the number of results that it gets from what runs before it."""

    signature: Signature
    results: int


class Submitter:
    """Starts canvases for one `TaskState`.

    Args:
        app: The Celery app.
        tracker: Where facts go.
    """

    def __init__(self, app: Celery, tracker: Tracker) -> None:
        self._app = app
        self._tracker = tracker

    def start(
        self,
        work: Any,
        *,
        task: ProcessingTask | int | str | None,
        task_name: str | None,
        parameters: Any,
        finishes: bool | None,
        answers: str | int | None,
        subscriber: Subscriber | None,
        options: dict[str, Any],
    ) -> ProcessingTask:
        """See `TaskState.start`."""
        canvas = self._canvas(work)
        leaves = list(_leaves(canvas))
        self._check(leaves, options)
        session = self._tracker.sessions.current
        # Nothing of this may reach the database before all checks are made.
        with session.no_autoflush:
            row = self._row(session, task, canvas, leaves, task_name)
            if row.is_finished:
                raise TaskFinishedError(row.id, row.status)
        if answers is not None:
            self.probe_broker()
        self._set_parameters(row, parameters, canvas)
        session.add(row)
        session.flush()
        if answers is not None:
            _answer(row, answers)
        connection = session.connection()
        job = store.take_up(connection, row.id, finishes=finishes)
        if job.end_status is not None:
            session.rollback()
            raise TaskFinishedError(row.id, job.end_status)
        first = _first_of_one(canvas)
        submission = Submission(job.ref)
        hold_id = None
        if first is not None:
            submission.registered = self._register_first(session, row.id, first, canvas, options)
        else:
            hold_id = store.hold(connection, row.id)
        if subscriber is not None:
            self.subscribe(session, row, subscriber)
        session.commit()
        self._publish(canvas, submission, hold_id, options)
        if self._app.conf.task_always_eager:
            session.refresh(row)
        return row

    def _canvas(self, work: Any) -> Signature:
        if isinstance(work, Task):
            work = work.s()
        if not isinstance(work, Mapping):
            raise ArgumentsError(f"{work!r} is no signature; pass for example my_task.s(...) or chain(...)")
        # A copy, since ids are written into it: the caller may start the same signature again.
        canvas: Signature = maybe_signature(work, app=self._app).clone()
        if canvas.app is not self._app:
            canvas._app = self._app
        return canvas

    def _check(self, leaves: list[_Leaf], options: Mapping[str, Any]) -> None:
        for leaf in leaves:
            signature = leaf.signature
            name = signature.task
            args, kwargs = tuple(signature.args or ()), dict(signature.kwargs or {})
            task = find_plugin_task(self._app, name)
            if task is not None and task.typing is not False:
                check_arguments(task, (None,) * leaf.results + args, kwargs)
            serializer = (
                options.get("serializer")
                or signature.options.get("serializer")
                or getattr(task, "serializer", None)
                or self._app.conf.task_serializer
            )
            try:
                serialization.dumps((args, kwargs), serializer)
            except (EncodeError, TypeError, ValueError) as exc:
                raise ArgumentsError(
                    f"arguments for {name} cannot be serialised as {serializer}: {exc}; nothing was written or sent"
                ) from exc

    def _row(
        self,
        session: Session,
        task: ProcessingTask | int | str | None,
        canvas: Signature,
        leaves: list[_Leaf],
        task_name: str | None,
    ) -> ProcessingTask:
        if isinstance(task, ProcessingTask):
            row = task
            if row.id is not None and row in session:
                session.refresh(row, ["finished_at", "task_status"])
        elif task is not None:
            found = ProcessingTask.get_by_id(task)  # type: ignore[arg-type]
            if found is None:
                raise TaskNotFoundError(task)
            row = found
        else:
            name = task_name or (leaves[0].signature.task if leaves else str(canvas.subtask_type or canvas.task))
            return ProcessingTask(task_name=name)
        if task_name is not None:
            row.task_name = task_name
        return row

    def _set_parameters(self, row: ProcessingTask, parameters: Any, canvas: Signature) -> None:
        if parameters is None:
            task = find_plugin_task(self._app, canvas.task) if _is_leaf(canvas) else None
            if task is None or not task.store_parameters:
                return
            parameters = _named_arguments(task, canvas)
        if isinstance(parameters, str):
            row.parameters = parameters
            return
        try:
            row.parameters = json.dumps(parameters, allow_nan=False)
        except (TypeError, ValueError) as exc:
            raise ArgumentsError(f"parameters cannot be written as JSON: {exc}; pass a text or JSON values") from exc

    def _register_first(
        self, session: Session, task_id: int, first: Signature, canvas: Signature, options: dict[str, Any]
    ) -> ExecutionKey:
        chosen = first.options.get("task_id") or (options.pop("task_id", None) if _is_leaf(canvas) else None)
        celery_id = chosen or uuid()
        first.set(task_id=celery_id)
        key = ExecutionKey(celery_id)
        connection = session.connection()
        if chosen and store.is_registered(connection, task_id, key):
            session.rollback()
            raise DuplicateExecutionError(
                f"task {task_id} already has an execution with the Celery id {celery_id!r}; choose another id"
            )
        publication = Publication(key, first.task, None, options.get("queue"), now(), None)
        store.register(connection, task_id, [publication])
        return key

    def subscribe(self, session: Session, task: ProcessingTask, subscriber: Subscriber) -> TaskUpdateSubscription:
        """Add a subscription to the session unless the same one is there; does not commit.

        Raises:
            SettingsError: If no `task_href` was given and `taskstate_public_url` is not set.
        """
        settings = self._tracker.settings
        task_href = subscriber.task_href
        if task_href is None:
            if settings.public_url is None:
                raise SettingsError("a subscription needs a task_href, or the setting taskstate_public_url")
            task_href = f"{settings.public_url.rstrip('/')}/tasks/{task.id}/"
        for known in TaskUpdateSubscription.get_by_task_and_subscriber(
            task, subscriber.webhook_href, event=subscriber.event
        ):
            return known
        subscription = TaskUpdateSubscription(
            task, webhook_href=subscriber.webhook_href, task_href=task_href, event_type=subscriber.event
        )
        session.add(subscription)
        return subscription

    def probe_broker(self) -> None:
        """Ask the broker for a sign of life.

        Raises:
            BrokerUnavailableError: If it gives none within about a second.
        """
        if self._app.conf.task_always_eager:
            return
        try:
            with self._app.connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, interval_start=0.1, timeout=2)
                connection.default_channel.close()
        except (KombuError, OSError, *self._connection_errors()) as exc:
            raise self._unreachable(exc) from exc

    def _connection_errors(self) -> tuple[type[BaseException], ...]:
        connection = self._app.connection_for_write()
        return (*connection.connection_errors, *connection.channel_errors)

    def _unreachable(self, exc: BaseException) -> BrokerUnavailableError:
        url = maybe_sanitize_url(self._app.connection_for_write().as_uri())
        return BrokerUnavailableError(f"the broker {url} cannot be reached: {exc}; is it running, is broker_url right?")

    def _publish(self, canvas: Signature, submission: Submission, hold_id: str | None, options: dict[str, Any]) -> None:
        try:
            with submitting(submission):
                canvas.apply_async(**options)
        except Exception as exc:
            self._give_up(submission.ref, exc)
            if isinstance(exc, (KombuError, OSError, *self._connection_errors())) and not isinstance(exc, EncodeError):
                raise self._unreachable(exc) from exc
            raise
        if hold_id is None and not submission.publications:
            return
        publications = submission.take_sent()
        if hold_id is None:
            self._tracker.register(submission.ref, publications)
            return
        released = hold_id
        outcome = self._tracker.write(
            lambda connection: store.release(connection, submission.ref, released, publications)
        )
        self._tracker.finish_showing(submission.ref.task_id, outcome)

    def _give_up(self, ref: TaskRef, exc: Exception) -> None:
        entry = f"could not be sent to the broker: {type(exc).__name__}: {exc}"
        outcome = self._tracker.write(
            lambda connection: store.end(connection, ref.task_id, TaskStatus.ERROR, entry=entry)
        )
        self._tracker.finish_showing(ref.task_id, outcome)


def _answer(row: ProcessingTask, answers: str | int) -> None:
    last = row.steps[-1] if row.steps else None
    if last is None:
        raise StepNotOpenError(row.id, answers, "the task has no step")
    if str(last.step_id) != str(answers):
        raise StepNotOpenError(row.id, answers, f"the newest step is {last.step_id!r}")
    if not row.clear_previous_step():
        raise StepNotOpenError(row.id, answers, "it was answered before")


def _is_leaf(signature: Signature) -> bool:
    return not signature.subtask_type


def _first_of_one(canvas: Signature) -> Signature | None:
    """Return the signature whose message is the only one that submitting the canvas sends, if it is so."""
    if _is_leaf(canvas):
        return canvas
    if isinstance(canvas, chain):
        tasks = canvas.tasks
        if len(tasks) > 0 and all(isinstance(task, Signature) and _is_leaf(task) for task in tasks):
            first: Signature = tasks[0]
            return first
    return None


def _leaves(signature: Signature, results: int = 0) -> Iterator[_Leaf]:
    """Go through the signatures of a canvas whose arguments are known before it is sent."""
    for linked in (signature.options.get("link") or []) if not isinstance(signature, chord) else []:
        if isinstance(linked, Signature):
            yield from _leaves(linked, 1)
    if isinstance(signature, chain):
        for position, task in enumerate(signature.tasks):
            yield from _leaves(task, results if position == 0 else 1)
    elif isinstance(signature, group):
        for task in signature.tasks:
            yield from _leaves(task, results)
    elif isinstance(signature, chord):
        header = signature.tasks
        for task in header.tasks if isinstance(header, group) else header:
            yield from _leaves(task, results)
        if signature.body is not None:
            yield from _leaves(signature.body, 1)
    elif _is_leaf(signature):
        yield _Leaf(signature, 0 if signature.immutable else results)


def _named_arguments(task: PluginTask, signature: Signature) -> dict[str, Any]:
    bound = task.plugin_signature.bind_partial(*signature.args, **signature.kwargs)
    return dict(bound.arguments)
