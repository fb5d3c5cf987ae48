"""Subscribes webhooks to tasks and unsubscribes them, in a session."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from ...models.subscription import TaskUpdateSubscription, is_of_subscriber
from ...models.task import ProcessingTask
from ...settings.values import Settings
from ...store.task import outbox
from ...store.task import subscriptions as task_subscriptions
from .subscriber import Subscriber, check_event, check_known_webhook


def subscribe(
    session: Session, task: ProcessingTask, subscriber: Subscriber, settings: Settings, *, is_new: bool = False
) -> TaskUpdateSubscription:
    """Add a subscription to the session unless the same one is there; does not commit.

    Args:
        session: The session; flushed, and its transaction holds the task in order until it ends.
        task: A task that is in the database.
        subscriber: As `check_subscriber` has accepted it.
        settings: For the default of the `task_href`.
        is_new: The task was inserted in this transaction, so that nobody else can subscribe to it yet.
    """
    session.flush()
    if not is_new:
        # Before the look: of two callers at once, the second sees what the first has committed.
        outbox.lock_for_subscription(session.connection(), task.id)
    task_href = subscriber.task_href
    if task_href is None:
        task_href = f"{str(settings.public_url).rstrip('/')}/tasks/{task.id}/"
    known = _of_new(task, subscriber) if is_new else _committed(session, task, subscriber)
    if known is not None:
        return known
    subscription = TaskUpdateSubscription(
        task, webhook_href=subscriber.webhook_href, task_href=task_href, event_type=subscriber.event
    )
    session.add(subscription)
    return subscription


def _of_new(task: ProcessingTask, subscriber: Subscriber) -> TaskUpdateSubscription | None:
    wanted = (subscriber.webhook_href, subscriber.event)
    return next((known for known in task.subscriptions if (known.webhook_href, known.event_type) == wanted), None)


def _committed(session: Session, task: ProcessingTask, subscriber: Subscriber) -> TaskUpdateSubscription | None:
    return session.scalars(
        select(TaskUpdateSubscription)
        .where(is_of_subscriber(task, subscriber.webhook_href, subscriber.event))
        .order_by(TaskUpdateSubscription.id)
        .limit(1)
        # Locked, so that it is seen as it is now also in a host's transaction of REPEATABLE READ.
        .with_for_update(read=True)
    ).first()


def subscribe_and_commit(
    session: Session, task: ProcessingTask, subscriber: Subscriber, settings: Settings
) -> TaskUpdateSubscription:
    """As `subscribe`, and commit; rolls back if that fails."""
    try:
        subscription = subscribe(session, task, subscriber, settings)
        session.commit()
    except BaseException:
        session.rollback()
        raise
    return subscription


def check_unsubscribe(webhook_href: object, event: object) -> None:
    """Check the arguments of `TaskState.unsubscribe`.

    Raises:
        WebhookTargetError: If the URL is no text.
        EventError: If there is no such event.
    """
    check_known_webhook(webhook_href)
    if event is not ...:
        check_event(event)


def unsubscribe_and_commit(session: Session, task_id: int, webhook_href: str, event: Any) -> int:
    """Remove subscriptions of a webhook to a task, and commit; see `TaskState.unsubscribe`.

    Returns:
        How many were removed.
    """
    chosen = is_of_subscriber(task_id, webhook_href, event)
    removed = task_subscriptions.remove(session, TaskUpdateSubscription, chosen)
    session.commit()
    return removed
