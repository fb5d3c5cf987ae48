"""`TaskState`: what an application calls. Its parts are made and joined by `wiring`."""

from __future__ import annotations

import functools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar, Unpack, cast

from celery import Celery, _state
from celery.local import Proxy
from sqlalchemy import Connection, CursorResult, Engine, delete, inspect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, scoped_session

from . import current as current_module
from .broker import workers
from .broker.sender import Sender
from .context import current as context_current
from .database import schema as database_schema
from .database.engine import Database
from .database.sessions import django_host as sessions_django_host
from .database.sessions.after_commit import after_commit
from .database.sessions.open_writes import has_open_write
from .database.sessions.own_locks import holds_own_lock, refuse_own_lock
from .database.sessions.scopes import Sessions
from .errors import (
    DatabaseUnavailableError,
    NotConfiguredError,
    NotRestartableError,
    SchemaError,
    SettingsError,
    StatusError,
    TaskNotFoundError,
)
from .facts import Publication, TaskRef
from .ids import row_id
from .models.link import TaskLink
from .models.subscription import TaskUpdateSubscription, is_of_subscriber
from .models.task import ProcessingTask
from .plugin import adoption as plugin_adoption
from .plugin import arguments, task_class
from .plugin import chords as plugin_chords
from .plugin.adoption import Adopted
from .reading import resource, tasks
from .reading import wait as reading_wait
from .recording.tracker import Tracker
from .settings.keywords import SettingKeywords
from .settings.values import Settings, setting_names
from .states import TaskStatus, check_status, is_terminal
from .store.ending import from_outside
from .store.executions import lookup
from .store.task import first_work, jobs
from .tracking import signals as tracking_signals
from .tracking import worker_requests as tracking_worker_requests
from .tracking.submission.restart import from_kept
from .tracking.submission.submit import Submitter
from .tracking.submission.subscriber import Subscriber, check_event, check_known_webhook
from .upkeep.pruning import OutputsHook, Pruned
from .upkeep.round import Settled
from .webhooks.deliverer import Deliverer
from .wiring import Given, Parts, register_tasks, select_tasks, warn_of_unmatched

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


def _explained(call: Callable[P, R]) -> Callable[P, R]:
    """Let a method of `TaskState` say what is wrong with the database, rather than what its driver says."""

    @functools.wraps(call)
    def explained(*args: P.args, **kwargs: P.kwargs) -> R:
        with cast(TaskState, args[0]).sessions.explaining():
            return call(*args, **kwargs)

    return explained


#: Seconds between two tries of a prefork pool's parent to write what waits.
_CATCH_UP_SECONDS = 1.0

#: Pauses in seconds between two looks of `wait`: quick at first, then gentle to the database.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5


class TaskState:
    """Durable, true task state for one Celery app. Opens no connection before it is used.

    Args:
        app: The Celery app; or call `init_app` later.
        session: The session of the host application (a `scoped_session`, or a callable that returns the session),
            for example Flask-SQLAlchemy's `db.session`; it is then the current session everywhere. Without `engine`
            and URL its engine is looked up at first use: in an application context, or that of the only Flask app.
        engine: An engine of the host, instead of `taskstate_database_url`.
        environment: Where `TASKSTATE_…` names are read from, such as `os.environ`; None reads none.
        on_outputs_removed: Is called with a list of `RemovedOutput` after old tasks were removed, in the process and
            thread that removed them; their files are left to the application. Hand what takes long to a Celery task.
        settings: Settings by keyword, without their prefix; they win over Celery's configuration.

    Raises:
        SettingsError: If a keyword names no setting. Values are checked at first use.
    """

    def __init__(
        self,
        app: Celery | None = None,
        *,
        session: scoped_session[Any] | Callable[[], Session] | None = None,
        engine: Engine | None = None,
        environment: Mapping[str, str] | None = None,
        on_outputs_removed: OutputsHook | None = None,
        **settings: Unpack[SettingKeywords],
    ) -> None:
        for name in settings:
            if name not in setting_names():
                raise SettingsError(f"unknown setting {name!r}; known are {', '.join(setting_names())}")
        self._app: Celery | None = None
        self._given = Given(
            keywords=settings,
            session=session,
            engine=engine,
            environment=environment,
            on_outputs_removed=on_outputs_removed,
        )
        self._guard = threading.RLock()
        self._parts: Parts | None = None
        self._catching_up: Any = None
        self._sender = Sender()
        if app is not None:
            self.init_app(app)

    def __repr__(self) -> str:
        return f"<TaskState of {self._app.main if self._app is not None else None!r}>"

    def init_app(self, app: Celery) -> None:
        """Track the tasks of a Celery app, and make this the `TaskState` of the process for that app.

        May be called again, for example by an application factory; settings, session and engine are then looked up
        anew at the next use.
        """
        if self._app is not None:
            self.close()
        self._app = app
        current_module.register(app, self, _state.get_current_app)
        register_tasks(app)
        tracking_signals.connect()
        app.on_after_finalize.connect(self._on_finalized, weak=False, dispatch_uid=f"qhana_taskstate.{id(self)}")
        if app.finalized:  # type: ignore[attr-defined]  # not in the stubs
            self._on_finalized(app)

    def _on_finalized(self, sender: Celery, **_: Any) -> None:
        if current_module.find(sender) is self:
            select_tasks(sender, self._given)

    @property
    def app(self) -> Celery:
        """The Celery app.

        Raises:
            NotConfiguredError: Before `init_app`.
        """
        if self._app is None:
            raise NotConfiguredError("this TaskState has no Celery app yet; call taskstate.init_app(app)")
        return self._app

    @property
    def settings(self) -> Settings:
        """The settings, read at first use.

        Raises:
            SettingsError: If one is unknown or makes no sense.
        """
        return self.parts.settings

    @property
    def parts(self) -> Parts:
        """What does the work; made at first use."""
        if self._parts is None:
            with self._guard:
                if self._parts is None:
                    self._parts = Parts(self.app, self._given, self._sender)
        return self._parts

    @property
    def tracker(self) -> Tracker:
        """What records facts; made at first use."""
        return self.parts.tracker

    @property
    def deliverer(self) -> Deliverer:
        """What tells subscribers; made at first use."""
        return self.parts.deliverer

    @property
    def sessions(self) -> Sessions:
        """Where the current session comes from."""
        return self.parts.sessions

    @property
    def database(self) -> Database:
        """The database of the task states."""
        return self.parts.database

    @property
    def session(self) -> Session:
        """The current session: one an execution, web request, `with session_scope()`, or thread."""
        return self.sessions.current

    def session_scope(self) -> AbstractContextManager[Session]:
        """Give a block its own session: `with taskstate.session_scope() as session:`. Does not commit at its end."""
        return self.sessions.scope()

    def close(self) -> None:
        """End what this process does for it: its threads, and its connections.

        What still waits to be written or told goes first, for a few seconds at most. No task may run here any more.
        Used again, it begins anew. A session or engine of the host is left alone.
        """
        if self._parts is not None:
            self._parts.close()
            # Last: the thread, and what is told at the end, ask for the parts, and would make others.
            self._parts = None

    def upgrade(self) -> None:
        """Bring the schema of the database up to date; safe to repeat, and twice at once.

        Raises:
            DatabaseUnavailableError: If the database cannot be reached.
        """
        database_schema.upgrade(self.database)

    def start(
        self,
        work: Any,
        *,
        task: ProcessingTask | int | str | None = None,
        task_name: str | None = None,
        parameters: Any = None,
        finishes: bool | None = None,
        answers: str | int | None = None,
        webhook_href: str | None = None,
        event: str | None = None,
        task_href: str | None = None,
        **apply_async_options: Any,
    ) -> ProcessingTask:
        """Start a canvas as a new job, or as further work of a task. A commit point like `save(commit=True)`.

        One commit of the current session holds the task, the registration, the cleared step and the subscription;
        then the canvas is published. Inside an execution it starts a separate job.

        Args:
            work: A signature, chain, group, chord, or nest of them; a bare task stands for its signature.
            task: The task to go on with, or its id; None makes a new one.
            task_name: Name of the task; a new one has that of its first Celery task by default.
            parameters: Text for `ProcessingTask.parameters`, or values that are written as JSON.
            finishes: False makes the task open-ended: it stays PENDING until `finish`, a status set by hand, a
                failure, or `cancel`. True makes it end when nothing is open. None keeps what it is.
            answers: `step_id` of the open step that this work answers; the step is cleared in the same commit.
            webhook_href: Subscribe this webhook in the same commit.
            event: The event to subscribe to; None for all.
            task_href: What webhooks name as their source; by default made from `taskstate_public_url`.
            apply_async_options: Celery's options, such as `queue`, `countdown` or `expires`.

        Returns:
            The committed `ProcessingTask`; with `task_always_eager` already run.

        Raises:
            ArgumentsError: If arguments do not fit a plugin task or cannot be serialised; nothing was written.
            TaskNotFoundError: If there is no such task.
            TaskFinishedError: If the task has ended; nothing was sent.
            StepNotOpenError: If the step does not wait for an answer (any more); nothing was sent.
            DuplicateExecutionError: If `task_id` was used in this task before; nothing was sent.
            BrokerUnavailableError: If the broker cannot be reached; the task has then ended as ERROR, except with
                `answers`, where nothing was changed.
            WebhookTargetError: If the webhook's URL is unusable; nothing was written.
            EventError: If the event is none of the three; nothing was written.
            SettingsError: If there is a webhook, but neither a `task_href` nor a public URL; nothing was written.
            OwnTransactionError: If on SQLite it would wait for an open transaction of this thread; nothing was written.
        """
        subscriber = None
        if webhook_href is not None:
            subscriber = Subscriber(webhook_href=webhook_href, task_href=task_href, event=event)
        elif event is not None or task_href is not None:
            raise SettingsError("event and task_href say how to call a webhook; pass webhook_href too")
        submitter = Submitter(self.app, self.tracker)
        return submitter.start(
            work,
            task=task,
            task_name=task_name,
            parameters=parameters,
            finishes=finishes,
            answers=answers,
            subscriber=subscriber,
            options=apply_async_options,
        )

    def start_on_commit(
        self,
        work: Any,
        *,
        session: Session | None = None,
        using: str | None = None,
        task: ProcessingTask | int | str | None = None,
        task_name: str | None = None,
        parameters: Any = None,
        finishes: bool | None = None,
        answers: str | int | None = None,
        webhook_href: str | None = None,
        event: str | None = None,
        task_href: str | None = None,
        **apply_async_options: Any,
    ) -> ProcessingTask | None:
        """Start a canvas once the host's open transaction is committed, and never if it is rolled back.

        In Django that is the transaction of `transaction.atomic()`, by Django's own `on_commit`. Otherwise it is that
        of an SQLAlchemy session: the one given; that of the host which this `TaskState` was made with; or the current
        one of ours, if it holds a write. Where no transaction is open, the canvas is started at once.

        Args:
            work: As for `start`; copied and checked at once.
            session: An SQLAlchemy session of the host, for its transaction (an `AsyncSession` too).
            using: Django's alias of a database, for its transaction.
            task: As for `start`, like all that follow.
            task_name: Name of the task.
            parameters: Its parameters.
            finishes: Whether it ends by itself.
            answers: The step that is answered.
            webhook_href: Who is to be told.
            event: Of what.
            task_href: In which words.
            apply_async_options: Celery's options.

        Returns:
            The task if it was started at once, else None.

        Raises:
            ArgumentsError: If arguments do not fit a plugin task or cannot be serialised.
            TaskStateError: What `start` raises comes at once, or out of the host's commit.
        """
        canvas = Submitter(self.app, self.tracker).check(work, apply_async_options)
        start = functools.partial(
            self.start,
            canvas,
            task_name=task_name,
            parameters=parameters,
            finishes=finishes,
            answers=answers,
            webhook_href=webhook_href,
            event=event,
            task_href=task_href,
            **apply_async_options,
        )
        django = sessions_django_host.open_transaction(using) if session is None else None
        if django is not None:
            django.on_commit(functools.partial(start, task=task))
            return None
        if using is None:
            found = self._session_to_wait_for(session)
            if found is not None:
                after_commit(found, functools.partial(self._start_aside, start, task))
                return None
        return start(task=task)

    def _session_to_wait_for(self, given: Any) -> Session | None:
        """Return the session whose commit is waited for, None if none is in a transaction."""
        session: Session | None = getattr(given, "sync_session", given)
        if session is None:
            session = self.sessions.opened()
            if session is not None and not self.sessions.hosted and not has_open_write(session):
                # Of ours; what was only read is no transaction of the host.
                return None
        return session if session is not None and session.in_transaction() else None

    def _start_aside(self, start: Callable[..., ProcessingTask], task: ProcessingTask | int | str | None) -> None:
        """Start something while the current session ends its transaction, so that it cannot be used."""
        if isinstance(task, ProcessingTask):
            # Its attributes may have expired, and would be read by that session.
            identity = inspect(task).identity
            task = identity[0] if identity else task
        with self.sessions.aside():
            start(task=task)

    @_explained
    def restart(self, task: ProcessingTask | int | str, *, task_href: str | None = None) -> ProcessingTask:
        """Start the first work of a task again, as a new task with the same name and parameters. Commits like `start`.

        The canvas is started whole, with the arguments that it had. The new task names the old one by a link of the
        type `restart-of`. Subscriptions are not taken over.

        Args:
            task: The task or its id; it may have ended or not.
            task_href: Where the link leads; by default made from `taskstate_public_url`, or a path without it.

        Returns:
            The new task.

        Raises:
            TaskNotFoundError: If there is no such task.
            NotRestartableError: If its work was not kept, for want of `@plugin_task(restartable=True)`.
            BrokerUnavailableError: As `start` does.
        """
        old = self._get(_id_of(task))
        kept = self.database.read(lambda connection: first_work.find(connection, old.id))
        if kept is None:
            raise NotRestartableError(old.id)
        canvas, options = from_kept(self.app, kept)
        base = (self.settings.public_url or "").rstrip("/")
        new = ProcessingTask(old.task_name, parameters=old.parameters)
        self.session.add(new)
        self.session.add(TaskLink(new, "restart-of", task_href or f"{base}/tasks/{old.id}/"))
        return self.start(canvas, task=new, **options)

    def current(self) -> ProcessingTask:
        """Return the `ProcessingTask` of the running execution, read anew.

        Raises:
            NotInExecutionError: If no tracked execution runs here.
            TaskNotFoundError: If the row was deleted meanwhile.
        """
        return task_class.task_of_execution()

    @_explained
    def wait(
        self, task: ProcessingTask | int | str, timeout: float | None = None, *, or_step: bool = False
    ) -> ProcessingTask:
        """Wait until a task has ended.

        Args:
            task: The task or its id.
            timeout: Seconds to wait at most; None waits without limit.
            or_step: Also stop waiting when the task waits at a step for input.

        Returns:
            The task, read anew.

        Raises:
            TimeoutError: If it has not ended in time; names the status seen.
            TaskNotFoundError: If there is no such task.
        """
        task_id = _id_of(task)
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = _FIRST_PAUSE
        upkeep = self.parts.upkeep
        looked = time.monotonic()
        while True:
            seen = self.database.read(lambda connection: reading_wait.glance(connection, task_id))
            if seen is None:
                raise TaskNotFoundError(task)
            if seen.finished or (or_step and seen.waiting):
                return self._get(task_id)
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError(f"task {task_id} is still {TaskStatus.PENDING} after {timeout} s")
            time.sleep(pause if left is None else min(pause, left))
            pause = min(pause * 1.5, _LONGEST_PAUSE)
            if time.monotonic() - looked >= upkeep.interval_seconds:
                # So that a task whose last worker died ends although no worker is left to see it.
                looked = time.monotonic()
                self.upkeep(force=False)

    def _get(self, task_id: int) -> ProcessingTask:
        task = ProcessingTask.get_by_id(task_id)
        if task is None:
            raise TaskNotFoundError(task_id)
        return task

    @_explained
    def cancel(self, task: ProcessingTask | int | str, terminate: bool = False, reason: str = "") -> bool:
        """End a task as ERROR, and ask the workers to drop what of it has not begun.

        Args:
            task: The task or its id.
            terminate: Also terminate what runs (prefork and gevent pools).
            reason: Goes into the log.

        Returns:
            False if the task had already ended.

        Raises:
            TaskNotFoundError: If there is no such task.
        """
        entry = f"cancelled: {reason}" if reason else "cancelled"
        if not self._end(task, TaskStatus.ERROR, entry):
            return False
        task_id = _id_of(task)
        celery_ids = self.database.read(lambda connection: lookup.open_celery_ids(connection, task_id))
        if celery_ids:
            try:
                self.app.control.revoke(celery_ids, terminate=terminate)
            except Exception as exc:
                # What has not begun finds its task ended; only `terminate` is lost.
                logger.warning("workers could not be told that task %s is cancelled: %s", task_id, exc)
        return True

    @_explained
    def finish(
        self, task: ProcessingTask | int | str, log: str | None = None, status: str = TaskStatus.SUCCESS.value
    ) -> bool:
        """End a task, whatever of it is open; meant for tasks started with `finishes=False`.

        Args:
            task: The task or its id.
            log: A last log entry.
            status: SUCCESS or ERROR.

        Returns:
            False if the task had already ended.

        Raises:
            TaskNotFoundError: If there is no such task.
            StatusError: If the status is neither.
        """
        word = check_status(status)
        if not is_terminal(word):
            raise StatusError(f"a task cannot be finished as {status!r}; use 'SUCCESS' or 'ERROR'")
        return self._end(task, TaskStatus(str(word)), log)

    def _end(self, task: ProcessingTask | int | str, status: TaskStatus, entry: str | None) -> bool:
        task_id = _id_of(task)
        if self.sessions.open_write():
            # Our own connection would wait for the caller's open transaction, in the same thread.
            self.session.commit()
        refuse_own_lock(self.database, None)
        if self.database.read(lambda connection: reading_wait.glance(connection, task_id)) is None:
            raise TaskNotFoundError(task)
        outcome = self.tracker.write(lambda connection: from_outside.end(connection, task_id, status, entry=entry))
        self.tracker.finish_showing(task_id, outcome)
        return outcome.ended is not None

    def upkeep(self, *, force: bool = True) -> Settled | None:
        """Look once for work that was lost, and settle it; workers do so by themselves.

        Silence has to be seen for `taskstate_lost_after_seconds` before it counts, so that one call alone only
        notes who is silent; call it again and again, every few seconds.

        Args:
            force: Do it although another process does it already.

        Returns:
            What was settled; None if another process does it, or if the database cannot be reached now.
        """
        try:
            return self.parts.upkeep.tick(force=force)
        except (DBAPIError, DatabaseUnavailableError) as exc:
            logger.warning("upkeep could not look: %s", exc)
            return None

    @_explained
    def prune(self, older_than: timedelta, *, strangers: bool = False, dry_run: bool = False) -> Pruned:
        """Remove tasks that finished longer ago, with all their rows; commits every few tasks and waits for nobody.

        One with an open execution, or whose subscribers have still to be told, stays. Output files are reported to
        `on_outputs_removed` and not deleted.

        Args:
            older_than: Age of their end, by the database's clock.
            strangers: Also tasks that nobody gave to this package.
            dry_run: Only count.

        Returns:
            What was done.

        Raises:
            DatabaseUnavailableError: If the database cannot be reached.
        """
        return self.parts.pruner.prune(older_than, strangers=strangers, dry_run=dry_run)

    @_explained
    def find(self, celery_id: str) -> ProcessingTask | None:
        """Return the task that a Celery id belongs to, None if no tracked message has that id."""
        ref = self.database.read(lambda connection: lookup.find_task(connection, str(celery_id)))
        return None if ref is None else ProcessingTask.get_by_id(ref.task_id)

    @_explained
    def describe(
        self, task: ProcessingTask | int | str, *, log_bytes: int | None = tasks.DESCRIBED_LOG_BYTES
    ) -> dict[str, Any]:
        """Return the JSON of the task resource, as QHAna's task view gives it.

        Args:
            task: The task or its id.
            log_bytes: How many bytes of the newest log are in it, so that the answer to each poll stays small. Where
                that is not all, the first line of the log says how many characters are left out. None gives all of
                it, as `ProcessingTask.task_log` does.

        Raises:
            TaskNotFoundError: If there is no such task.
        """
        row = ProcessingTask.get_by_id(_id_of(task))
        if row is None:
            raise TaskNotFoundError(task)
        return resource.describe(row, self.settings, log_bytes=log_bytes)

    @_explained
    def subscribe(
        self,
        task: ProcessingTask | int | str,
        webhook_href: str,
        task_href: str | None = None,
        event: str | None = None,
    ) -> TaskUpdateSubscription:
        """Subscribe a webhook to a task, and commit. Twice is once, also for two callers at once.

        A task that has ended already owes it one `status`.

        Args:
            task: The task or its id.
            webhook_href: Where to call.
            task_href: What the call names as its source; by default made from `taskstate_public_url`.
            event: `status`, `steps` or `details`; None for all.

        Raises:
            TaskNotFoundError: If there is no such task.
            WebhookTargetError: If the URL is unusable, or leads where webhooks may not go in any case.
            EventError: If the event is none of the three.
            ArgumentsError: If the `task_href` is no text.
            TextTooLongError: If a URL is longer than its column.
            SettingsError: If there is no `task_href` and no public URL.
            OwnTransactionError: If on SQLite it would wait for an open transaction of this thread.
        """
        subscriber = Subscriber(webhook_href=webhook_href, task_href=task_href, event=event)
        submitter = Submitter(self.app, self.tracker)
        submitter.check_subscriber(subscriber)
        refuse_own_lock(self.database, self.session)
        row = self._get(_id_of(task))
        try:
            subscription = submitter.subscribe(self.session, row, subscriber)
            self.session.commit()
        except BaseException:
            self.session.rollback()
            raise
        return subscription

    @_explained
    def unsubscribe(self, task: ProcessingTask | int | str, webhook_href: str, event: Any = ...) -> int:
        """Remove subscriptions of a webhook to a task, and commit.

        Args:
            task: The task or its id.
            webhook_href: The webhook.
            event: One event, None for the subscriptions to all events; left out, all of that webhook's.

        Returns:
            How many were removed.

        Raises:
            TaskNotFoundError: If this can be no task.
            WebhookTargetError: If the URL is no text.
            EventError: If the event is none of the three.
            OwnTransactionError: If on SQLite it would wait for an open transaction of this thread.
        """
        check_known_webhook(webhook_href)
        if event is not ...:
            check_event(event)
        statement = delete(TaskUpdateSubscription).where(is_of_subscriber(_id_of(task), webhook_href, event))
        # One statement, so that of two callers at once each removes its own.
        refuse_own_lock(self.database, self.session)
        removed = cast("CursorResult[Any]", self.session.execute(statement))
        self.session.commit()
        return removed.rowcount

    @contextmanager
    def detached(self) -> Iterator[None]:
        """Let messages published in the block belong to nobody, though the code runs in a tracked execution."""
        with context_current.detached():
            yield

    def bound(self, function: Callable[P, R]) -> Callable[P, R]:
        """Let a function that a raw thread will run belong to the execution of the caller."""
        return context_current.bound(function)

    def adopt(
        self, name: str, kwargs: Mapping[str, Any], publication: Publication, *, redelivered: bool
    ) -> TaskRef | None:
        """Find or make the task of a plugin task's message that carries none; for the signal handlers.

        A `db_id` keyword names it; otherwise the message becomes a task of its own. None while the thread has an open
        write on SQLite: our own connection would wait for it. The worker then adopts the message.
        """
        if self.tracker.must_not_write() or holds_own_lock(self.database):
            return None
        given = kwargs.get(arguments.TASK_ID_PARAMETER)
        task_id = row_id(given)
        if given is not None and task_id is None:
            logger.warning("%s was sent with db_id=%r, which is no id of a task; it is not tracked", name, given)
            return None
        if task_id is not None and not self.database.read(lambda connection: jobs.has_task(connection, task_id)):
            logger.warning("%s was sent with db_id=%s, but there is no such task yet", name, task_id)
            return None

        key = publication.key

        def work(connection: Connection) -> Adopted:
            # It may be tried again, after a first try that was rolled back.
            publication.key = key
            return plugin_adoption.adopt(
                connection,
                name,
                publication,
                task_id,
                finishes=False if task_id is not None and not self.settings.db_id_finishes else None,
                redelivered=redelivered,
                deadline_seconds=self.settings.publish_deadline_seconds,
            )

        adopted = self.tracker.write(work)
        if adopted.joined:
            logger.warning(
                "%s was sent again with the Celery id %r of task %s, which is still open, and belongs to that task; "
                "give work that is to be a task of its own another task_id",
                name,
                key.celery_id,
                adopted.ref.task_id,
            )
        return adopted.ref

    def on_worker_start(self) -> None:
        """Say, when a worker starts, what is wrong with the schema of the database, if something is."""
        self.tracker.parent_pid = os.getpid()
        warn_of_unmatched(self.app, self.settings)
        try:
            database_schema.check(self.database)
        except DatabaseUnavailableError as exc:
            logger.critical(
                "the worker starts without its database; what it has to say waits for %g s at most: %s",
                self.settings.keep_facts_seconds,
                exc,
            )
        except SchemaError as exc:
            self.tracker.backlog.note_missing_schema(exc)
        except DBAPIError as exc:
            logger.critical("task states cannot be recorded: %s", exc)
        finally:
            # Nothing of ours may be open when pool children are forked.
            self.database.close()
        tracking_worker_requests.install(self.app)
        plugin_chords.install(self.app)
        workers.install()

    def on_pool_process_start(self) -> None:
        """Take part in upkeep from a child of a prefork pool."""
        # One task at a time: beside it, the thread that renews leases has a connection of its own.
        self.database.keep_connections(1)
        self.on_ready()

    def on_parent_ready(self, timer: Any) -> None:
        """Write what waits for the database from the event loop of a prefork pool's parent.

        Not from a thread: a child that is forked while a thread talks to the database is broken. Celery says that it
        is ready again after each reconnection, and may have emptied the timer before.
        """
        if self._catching_up is None or self._catching_up.canceled:
            self._catching_up = timer.call_repeatedly(_CATCH_UP_SECONDS, self.tracker.catch_up)

    def on_leaving(self) -> None:
        """Write what waits for the database; what cannot be written is logged whole."""
        if self._parts is not None:
            self._parts.tracker.leave()
            self._parts.tell_at_exit()

    def on_ready(self) -> None:
        """Take part in upkeep."""
        self.tracker.serve_upkeep()


#: The process's `TaskState`, in every thread: of the current app, where there are several.
taskstate: TaskState = cast(TaskState, Proxy(current_module.get))


def _id_of(task: ProcessingTask | int | str) -> int:
    if isinstance(task, ProcessingTask):
        if task.id is None:
            raise TaskNotFoundError(None)
        return int(task.id)
    task_id = row_id(task)
    if task_id is None:
        raise TaskNotFoundError(task)
    return task_id
