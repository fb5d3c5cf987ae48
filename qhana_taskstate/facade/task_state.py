"""`TaskState`: what an application calls. Each method hands over to the part that does the work."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from celery.local import Proxy

from .. import registry
from ..context import current as context
from ..database.sessions.own_locks import refuse_own_lock
from ..facts import DESCRIBED_LOG_BYTES
from ..models.subscription import TaskUpdateSubscription
from ..models.task import ProcessingTask
from ..plugin import task_class
from ..states import TaskStatus, check_end
from ..store.executions import lookup
from . import late
from .assembled import explained
from .naming import id_of, row_of
from .waiting import Waiting

if TYPE_CHECKING:
    from ..upkeep.pruning import Pruned

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


class TaskState(Waiting):
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

    def current(self) -> ProcessingTask:
        """Return the `ProcessingTask` of the running execution, read anew.

        Raises:
            NotInExecutionError: If no tracked execution runs here.
            TaskNotFoundError: If the row was deleted meanwhile.
        """
        return task_class.task_of_execution()

    @explained
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
        task_id = id_of(task)
        entry = f"cancelled: {reason}" if reason else "cancelled"
        if not late.by_hand.end_by_hand(self.recorder, task_id, TaskStatus.ERROR, entry, named=task):
            return False
        celery_ids = self.database.read(lambda connection: lookup.open_celery_ids(connection, task_id))
        late.revoking.revoke_for(self.app, task_id, celery_ids, terminate=terminate)
        return True

    @explained
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
        end = check_end(status)
        return late.by_hand.end_by_hand(self.recorder, id_of(task), end, log, named=task)

    @explained
    def prune(self, older_than: timedelta, *, strangers: bool = False, dry_run: bool = False) -> Pruned:
        """Remove tasks that finished longer ago, with all their rows; commits every few tasks and waits for nobody.

        One with an open execution, or with deliveries that are still owed, stays. Output files are reported to
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

    @explained
    def find(self, celery_id: str) -> ProcessingTask | None:
        """Return the task that a Celery id belongs to, None if no tracked message has that id."""
        ref = self.database.read(lambda connection: lookup.find_task(connection, str(celery_id)))
        return None if ref is None else ProcessingTask.get_by_id(ref.task_id)

    @explained
    def describe(
        self, task: ProcessingTask | int | str, *, log_bytes: int | None = DESCRIBED_LOG_BYTES
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
        row = row_of(id_of(task), named=task)
        return late.resource.describe(row, self.settings, log_bytes=log_bytes)

    @explained
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
            EventError: If there is no such event.
            ArgumentsError: If the `task_href` is no text.
            TextTooLongError: If a URL is longer than its column.
            SettingsError: If there is no `task_href` and no public URL.
            OwnTransactionError: If on SQLite it would wait for an open transaction of this thread.
        """
        subscriber = late.subscriber.Subscriber(webhook_href=webhook_href, task_href=task_href, event=event)
        late.subscriber.check_subscriber(subscriber, self.settings)
        refuse_own_lock(self.database, self.session)
        row = row_of(id_of(task))
        return late.subscriptions.subscribe_and_commit(self.session, row, subscriber, self.settings)

    @explained
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
            EventError: If there is no such event.
            OwnTransactionError: If on SQLite it would wait for an open transaction of this thread.
        """
        late.subscriptions.check_unsubscribe(webhook_href, event)
        task_id = id_of(task)
        refuse_own_lock(self.database, self.session)
        return late.subscriptions.unsubscribe_and_commit(self.session, task_id, webhook_href, event)

    @contextmanager
    def detached(self) -> Iterator[None]:
        """Let messages published in the block belong to nobody, though the code runs in a tracked execution."""
        with context.detached():
            yield

    def bound(self, function: Callable[P, R]) -> Callable[P, R]:
        """Let a function that a raw thread will run belong to the execution of the caller."""
        return context.bound(function)


class _ProcessState(Proxy):  # type: ignore[type-arg]  # generic in the stubs alone
    """Stands for the `TaskState` of the process."""

    __slots__ = ()

    def _get_class(self) -> type:
        # `isinstance` asks for it. What looks at all objects of a process, as pytest-celery does, may not fail here.
        found = registry.find()
        return type(self if found is None else found)


#: The process's `TaskState`, in every thread: of the current app, where there are several.
taskstate: TaskState = cast(TaskState, _ProcessState(registry.get))
