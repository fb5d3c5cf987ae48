"""`TaskState.start` and what goes with it."""

from __future__ import annotations

import functools
from typing import Any

from sqlalchemy.orm import Session

from ..models.task import ProcessingTask
from . import late
from .assembled import Assembled, explained
from .naming import id_of, row_of


class Starting(Assembled):
    """Starts work. Arguments as for `Assembled`."""

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
            EventError: If there is no such event; nothing was written.
            SettingsError: If there is a webhook, but neither a `task_href` nor a public URL; nothing was written.
            OwnTransactionError: If on SQLite it would wait for an open transaction of this thread; nothing was written.
        """
        return late.submit.start(
            self.app,
            self.recorder,
            work,
            task=task,
            task_name=task_name,
            parameters=parameters,
            finishes=finishes,
            answers=answers,
            subscriber=late.subscriber.subscriber_of(webhook_href, task_href, event),
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
            webhook_href: The webhook to subscribe.
            event: To which event.
            task_href: What its calls name as their source.
            apply_async_options: Celery's options.

        Returns:
            The task if it was started at once, else None.

        Raises:
            ArgumentsError: If arguments do not fit a plugin task or cannot be serialised.
            TaskStateError: What `start` raises comes at once, or out of the host's commit.
        """
        start = functools.partial(
            late.submit.start,
            self.app,
            self.recorder,
            late.submit.copy_to_start(self.app, work, apply_async_options),
            task_name=task_name,
            parameters=parameters,
            finishes=finishes,
            answers=answers,
            subscriber=late.subscriber.subscriber_of(webhook_href, task_href, event),
            options=apply_async_options,
        )
        return late.on_commit.start_on_commit(start, self.sessions, task=task, session=session, using=using)

    @explained
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
        old = row_of(id_of(task))
        canvas, options = late.kept_work.work_of(self.app, self.database, old.id)
        base = (self.settings.public_url or "").rstrip("/")
        new = late.kept_work.new_task_like(self.session, old, task_href or f"{base}/tasks/{old.id}/")
        late.kept_work.lead_to(self.session, new, canvas, old.id)
        return self.start(canvas, task=new, **options)
