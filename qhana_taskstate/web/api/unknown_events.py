"""Subscriptions to events that there are not: taken as today, kept as they were given, and never called."""

from __future__ import annotations

from ...facade.task_state import TaskState
from ...models.task import ProcessingTask
from ...tracking.subscribing.subscriber import Subscriber, check_known_webhook, check_subscriber
from ...tracking.subscribing.subscriptions import subscribe_and_commit, unsubscribe_and_commit


def subscribe(state: TaskState, task_id: int, webhook_href: str, task_href: str, event: str) -> None:
    """Do as `TaskState.subscribe` for an event that there is not; twice is once here too.

    Raises:
        TaskStateError: As `TaskState.subscribe` does.
    """
    check_subscriber(Subscriber(webhook_href=webhook_href, task_href=task_href, event=None), state.settings)
    with state.sessions.explaining():
        task = ProcessingTask.get_by_id(task_id)
        if task is not None:
            subscriber = Subscriber(webhook_href=webhook_href, task_href=task_href, event=event)
            subscribe_and_commit(state.session, task, subscriber, state.settings)


def unsubscribe(state: TaskState, task_id: int, webhook_href: str, event: str) -> int:
    """Do as `TaskState.unsubscribe` for an event that there is not.

    Raises:
        TaskStateError: As `TaskState.unsubscribe` does.
    """
    check_known_webhook(webhook_href)
    with state.sessions.explaining():
        return unsubscribe_and_commit(state.session, task_id, webhook_href, event)
