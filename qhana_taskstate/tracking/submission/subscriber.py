"""Who wants to know of a task that is started."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import EventError, WebhookTargetError
from ...states import TaskEvent
from ...webhooks.http.shown import shown_href
from .checks import is_storable_href


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


def check_event(event: object) -> None:
    """Check what to be told of.

    Raises:
        EventError: If it is neither one of the three nor None.
    """
    if event is not None and not (isinstance(event, str) and event in set(TaskEvent)):
        raise EventError(event)


def check_known_webhook(webhook_href: object) -> None:
    """Check a URL that may have been subscribed before, whatever is allowed by now.

    Raises:
        WebhookTargetError: If it is no text, or one that no column can hold.
    """
    if not is_storable_href(webhook_href):
        raise WebhookTargetError(shown_href(webhook_href), "a text is needed, as it was subscribed")
