"""Starts work: one commit, then its messages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from celery import Celery, Task
from celery.canvas import Signature, maybe_signature
from celery.utils import uuid
from kombu import serialization
from kombu.exceptions import EncodeError, KombuError
from kombu.utils.url import maybe_sanitize_url
from sqlalchemy import Connection, inspect, select
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.orm import Session

from ...broker.connection import brief_connection
from ...broker.routing import queue_for
from ...clock import now
from ...context.current import submitting
from ...context.execution import Submission
from ...database.explain import explain
from ...database.faults import is_gone
from ...database.sessions.own_locks import refuse_own_lock
from ...database.tables.runner import HREF_LENGTH
from ...errors import (
    ArgumentsError,
    BrokerUnavailableError,
    DuplicateExecutionError,
    SettingsError,
    StepNotOpenError,
    TaskFinishedError,
    TaskNotFoundError,
    TextTooLongError,
)
from ...facts import ExecutionKey, Publication, TaskRef
from ...failures import summary_of
from ...models.subscription import TaskUpdateSubscription, is_of_subscriber
from ...models.task import ProcessingTask
from ...plugin.task_class import check_arguments, find_plugin_task
from ...recording.backlog import Fact
from ...recording.tracker import Tracker
from ...settings.webhook_values import AllowedNetworks
from ...states import TaskStatus
from ...store.closing import holds
from ...store.ending import from_outside
from ...store.ending.outcome import Outcome
from ...store.executions import registration
from ...store.executions.celery_ids import check_celery_id
from ...store.task import first_work, jobs, outbox
from ...store.task.first_work import KeptWork
from ...webhooks.http.addresses import check_href
from .canvas import (
    SIGNATURE_KEYS,
    Leaf,
    chosen_ids,
    first_of_one,
    is_leaf,
    leaves_of,
    moment_of,
    name_of,
    named_arguments,
)
from .checks import check_answer, is_storable_href
from .restart import as_kept
from .subscriber import Subscriber, check_event

#: Seconds for the probe of the broker.
_PROBE_SECONDS = 2


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
        leaves = list(leaves_of(canvas))
        self._check(leaves, options)
        kept = as_kept(self._app, canvas, options) if self._may_be_restarted(leaves) else None
        written = self._parameters(parameters, canvas)
        if subscriber is not None:
            self.check_subscriber(subscriber)
        session = self._tracker.sessions.current
        refuse_own_lock(self._tracker.database, session)
        try:
            row = self._row(session, task)
            if row is None:
                row = ProcessingTask(task_name or name_of(canvas, leaves))
            elif row.is_finished:
                raise TaskFinishedError(row.id, row.status)
            if answers is not None:
                check_answer(row, answers)
                self.probe_broker()
            submission, hold_id = self._commit(
                session,
                row,
                canvas,
                leaves,
                task_name,
                written,
                finishes,
                answers,
                subscriber,
                options,
                kept,
            )
        except DBAPIError as exc:
            session.rollback()
            raise explain(self._tracker.database, exc) from exc
        self._publish(canvas, submission, hold_id, options)
        if self._app.conf.task_always_eager:
            session.refresh(row)
        return row

    def check(self, work: Any, options: Mapping[str, Any]) -> Signature:
        """Check work that is started later.

        Returns:
            A copy of it, which the caller's changes do not reach.

        Raises:
            ArgumentsError: If it cannot be started.
        """
        canvas = self._canvas(work)
        self._check(list(leaves_of(canvas)), options)
        return canvas

    def _commit(
        self,
        session: Session,
        row: ProcessingTask,
        canvas: Signature,
        leaves: list[Leaf],
        task_name: str | None,
        parameters: str | None,
        finishes: bool | None,
        answers: str | int | None,
        subscriber: Subscriber | None,
        options: dict[str, Any],
        kept: KeptWork | None,
    ) -> tuple[Submission, str | None]:
        """Write all that must be there before the first message goes out, and commit it at once."""
        try:
            if answers is not None and not row.clear_previous_step():
                raise StepNotOpenError(row.id, answers, "it was answered before")
            if task_name is not None:
                row.task_name = task_name
            if parameters is not None:
                row.parameters = parameters
            session.add(row)
            is_new = inspect(row).pending
            session.flush()
            connection = session.connection()
            if is_new:
                job = jobs.take_new(connection, row.id, since=row.started_at, finishes=finishes)
            else:
                if subscriber is not None:
                    # In this order: see `rows`.
                    outbox.lock_for_subscription(connection, row.id)
                job = jobs.take_up(connection, row.id, finishes=finishes)
            if job.end_status is not None:
                raise TaskFinishedError(row.id, job.end_status)
            for celery_id in {*chosen_ids(leaves), *filter(None, [options.get("task_id")])}:
                if registration.is_registered(connection, row.id, ExecutionKey(celery_id)):
                    raise DuplicateExecutionError(
                        f"task {row.id} already has an execution with the Celery id {celery_id!r}; choose another id"
                    )
            if kept is not None:
                first_work.keep_first(connection, row.id, kept)
            # Without a broker the members of a chain come one after the other, with nothing open in between.
            first = canvas if self._app.conf.task_always_eager and is_leaf(canvas) else None
            if not self._app.conf.task_always_eager:
                first = first_of_one(canvas)
            submission = Submission(job.ref)
            hold_id = None
            if first is not None:
                submission.registered = self._register_first(session, row.id, first, canvas, options)
            else:
                hold_id = holds.hold(connection, row.id)
            if subscriber is not None:
                self.subscribe(session, row, subscriber)
            try:
                session.commit()
            except DBAPIError as exc:
                if is_gone(exc):
                    # Nobody knows whether it was committed; if it was, its messages will not come.
                    self._withdraw(submission, hold_id)
                raise
        except BaseException:
            session.rollback()
            raise
        return submission, hold_id

    def _withdraw(self, submission: Submission, hold_id: str | None) -> None:
        """End, once the database is back, a task whose start failed while it was committed."""
        ref, key = submission.ref, submission.registered

        def work(connection: Connection) -> Outcome:
            return from_outside.withdraw(connection, ref, key=key, hold_id=hold_id)

        def written(outcome: Outcome) -> None:
            self._tracker.finish_showing(ref.task_id, outcome)

        self._tracker.backlog.add(Fact(ref.task_id, f"the start of task {ref.task_id} failed", work, written))
        self._tracker.pulse()

    def _canvas(self, work: Any) -> Signature:
        if isinstance(work, Task):
            work = work.s()
        if not isinstance(work, Signature) and not (isinstance(work, dict) and work.keys() >= SIGNATURE_KEYS):
            raise ArgumentsError(f"{work!r} is no signature; pass for example my_task.s(...) or chain(...)")
        # A copy, since ids are written into it: the caller may start the same signature again.
        canvas: Signature = maybe_signature(work, app=self._app).clone()  # type: ignore[union-attr]  # no None here
        return canvas

    def _check(self, leaves: list[Leaf], options: Mapping[str, Any]) -> None:
        self._check_options(options)
        chosen = chosen_ids(leaves)
        for celery_id in chosen:
            check_celery_id(celery_id)
        if len(set(chosen)) != len(chosen):
            twice = next(celery_id for celery_id in chosen if chosen.count(celery_id) > 1)
            raise DuplicateExecutionError(f"the canvas has the Celery id {twice!r} twice; give each message its own")
        for leaf in leaves:
            self._check_options(leaf.signature.options)
            signature = leaf.signature
            name = signature.task
            args, kwargs = tuple(signature.args or ()), dict(signature.kwargs or {})
            task = find_plugin_task(self._app, name)
            if task is not None and task.checks_arguments:
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

    def _check_options(self, options: Mapping[str, Any]) -> None:
        """Let Celery look at the moments that a message names, before anything is written."""
        moments = {name: options[name] for name in ("countdown", "eta", "expires") if options.get(name) is not None}
        if options.get("task_id") is not None:
            check_celery_id(options["task_id"])
        if not moments:
            return
        try:
            self._app.amqp.as_task_v2(uuid(), "check", (), {}, **moments)
        except Exception as exc:
            raise ArgumentsError(f"options {moments!r} make no sense: {exc}; nothing was written or sent") from exc

    def _row(self, session: Session, task: ProcessingTask | int | str | None) -> ProcessingTask | None:
        if task is None:
            return None
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

    def _may_be_restarted(self, leaves: list[Leaf]) -> bool:
        tasks = (find_plugin_task(self._app, leaf.signature.task) for leaf in leaves)
        return any(task is not None and task.restartable for task in tasks)

    def _parameters(self, parameters: Any, canvas: Signature) -> str | None:
        if parameters is None:
            task = find_plugin_task(self._app, canvas.task) if is_leaf(canvas) else None
            if task is None or not task.store_parameters:
                return None
            parameters = named_arguments(task, canvas)
        if isinstance(parameters, str):
            return parameters
        try:
            return json.dumps(parameters, allow_nan=False)
        except (TypeError, ValueError) as exc:
            raise ArgumentsError(f"parameters cannot be written as JSON: {exc}; pass a text or JSON values") from exc

    def _register_first(
        self, session: Session, task_id: int, first: Signature, canvas: Signature, options: dict[str, Any]
    ) -> ExecutionKey:
        chosen = (options.pop("task_id", None) if is_leaf(canvas) else None) or first.options.get("task_id")
        celery_id = chosen or uuid()
        first.set(task_id=celery_id)
        chosen_options = {**first.options, **options}
        key = ExecutionKey(celery_id, int(chosen_options.get("retries") or 0))
        connection = session.connection()
        queue = None
        if not self._app.conf.task_always_eager:
            queue = queue_for(self._app, str(first.task), first.args, first.kwargs, chosen_options)
        publication = Publication(
            key,
            str(first.task),
            None,
            queue,
            now(),
            moment_of(chosen_options, "countdown", "eta"),
            expires=moment_of(chosen_options, "expires", "expires"),
        )
        registration.register(
            connection, task_id, [publication], deadline_seconds=self._tracker.settings.publish_deadline_seconds
        )
        return key

    def subscribe(self, session: Session, task: ProcessingTask, subscriber: Subscriber) -> TaskUpdateSubscription:
        """Add a subscription to the session unless the same one is there; does not commit.

        Args:
            session: The session; flushed, and its transaction holds the task in order until it ends.
            task: A task that is in the database.
            subscriber: As `check_subscriber` has accepted it.
        """
        session.flush()
        # Before the look: of two callers at once, the second sees what the first has committed.
        outbox.lock_for_subscription(session.connection(), task.id)
        task_href = subscriber.task_href
        if task_href is None:
            task_href = f"{str(self._tracker.settings.public_url).rstrip('/')}/tasks/{task.id}/"
        known = session.scalars(
            select(TaskUpdateSubscription)
            .where(is_of_subscriber(task, subscriber.webhook_href, subscriber.event))
            .order_by(TaskUpdateSubscription.id)
            .limit(1)
            # Locked, so that it is seen as it is now also in a host's transaction of REPEATABLE READ.
            .with_for_update(read=True)
        ).first()
        if known is not None:
            return known
        subscription = TaskUpdateSubscription(
            task, webhook_href=subscriber.webhook_href, task_href=task_href, event_type=subscriber.event
        )
        session.add(subscription)
        return subscription

    def check_subscriber(self, subscriber: Subscriber) -> None:
        """Check, before anything is written, who is to be told.

        Raises:
            TextTooLongError: If a URL is longer than its column.
            WebhookTargetError: If the URL is unusable, or leads where webhooks may not go in any case.
            EventError: If the event is none of the three.
            ArgumentsError: If the `task_href` is no text, or one that no column can hold.
            SettingsError: If no `task_href` was given and `taskstate_public_url` is not set.
        """
        settings = self._tracker.settings
        for name, href in (("webhook_href", subscriber.webhook_href), ("task_href", subscriber.task_href)):
            if isinstance(href, str) and len(href) > HREF_LENGTH:
                raise TextTooLongError(f"{name} of {len(href)} characters is too long; its column holds {HREF_LENGTH}")
        check_href(subscriber.webhook_href, AllowedNetworks.parse(settings.webhook_allowed_networks))
        check_event(subscriber.event)
        if subscriber.task_href is None and settings.public_url is None:
            raise SettingsError("a subscription needs a task_href, or the setting taskstate_public_url")
        if subscriber.task_href is not None and not is_storable_href(subscriber.task_href):
            raise ArgumentsError(f"task_href {subscriber.task_href!r} is no URL of a task; pass a text, or None")

    def probe_broker(self) -> None:
        """Ask the broker for a sign of life.

        Raises:
            BrokerUnavailableError: If it gives none within about a second.
        """
        if self._app.conf.task_always_eager:
            return
        try:
            with brief_connection(self._app, _PROBE_SECONDS):
                pass
        except self._broker_errors() as exc:
            raise self._unreachable(exc) from exc

    def _broker_errors(self) -> tuple[type[BaseException], ...]:
        connection = self._app.connection_for_write()
        return (KombuError, OSError, *connection.connection_errors, *connection.channel_errors)

    def _unreachable(self, exc: BaseException) -> BrokerUnavailableError:
        url = maybe_sanitize_url(self._app.connection_for_write().as_uri())
        return BrokerUnavailableError(f"the broker {url} cannot be reached: {exc}; is it running, is broker_url right?")

    def _publish(self, canvas: Signature, submission: Submission, hold_id: str | None, options: dict[str, Any]) -> None:
        if hold_id is not None:
            self._tracker.pulse().add_hold(hold_id)
        try:
            with submitting(submission):
                canvas.apply_async(**options)
        except Exception as exc:
            conf = self._app.conf
            if conf.task_always_eager and self._has_ended(submission.ref):
                self._release(submission, hold_id)
                if conf.task_eager_propagates:
                    raise
                # Celery raises a member's failure here for some canvases (a chain) and not for others.
                return
            self._give_up(submission.ref, exc, hold_id)
            if isinstance(exc, self._broker_errors()) and not isinstance(exc, EncodeError):
                raise self._unreachable(exc) from exc
            raise
        except BaseException:
            # Interrupted: nobody goes on with this submission.
            if hold_id is not None:
                self._tracker.pulse().remove_hold(hold_id)
            raise
        self._release(submission, hold_id)

    def _has_ended(self, ref: TaskRef) -> bool:
        with self._tracker.database.reading() as connection:
            job = jobs.find_job(connection, ref.task_id)
        return job is not None and job.end_status is not None

    def _release(self, submission: Submission, hold_id: str | None) -> None:
        """Register what was published, and end the hold."""
        if hold_id is None and not submission.publications:
            return
        publications = submission.take_sent()
        if hold_id is None:
            self._tracker.register(submission.ref, publications)
            return
        ref, released = submission.ref, hold_id
        deadline_seconds = self._tracker.settings.publish_deadline_seconds

        def work(connection: Connection) -> Outcome:
            return holds.release(connection, ref, released, publications, deadline_seconds=deadline_seconds)

        def written(outcome: Outcome) -> None:
            self._tracker.pulse().remove_hold(released)
            self._tracker.finish_showing(ref.task_id, outcome)

        # Its lease is renewed until then: what was sent is not to be given up for want of the database.
        try:
            self._tracker.record(Fact(ref.task_id, publications, work, written))
        except DBAPIError:
            self._tracker.pulse().remove_hold(released)
            raise

    def _give_up(self, ref: TaskRef, exc: Exception, hold_id: str | None) -> None:
        entry = f"could not be sent to the broker: {summary_of(exc)}"

        def work(connection: Connection) -> Outcome:
            return from_outside.end(connection, ref.task_id, TaskStatus.ERROR, entry=entry)

        def written(outcome: Outcome) -> None:
            self._tracker.finish_showing(ref.task_id, outcome)

        if hold_id is not None:
            self._tracker.pulse().remove_hold(hold_id)
        self._tracker.record(Fact(ref.task_id, entry, work, written))
