"""A subscriber as the caller names it, and the checks of its URL and event."""

from __future__ import annotations

from dataclasses import dataclass

from ...database.tables.runner import HREF_LENGTH
from ...errors import ArgumentsError, EventError, SettingsError, TextTooLongError, WebhookTargetError
from ...events import TaskEvent
from ...settings.values import Settings
from ...settings.webhook_values import AllowedNetworks
from ...texts import is_storable
from ...webhooks.http.addresses import check_href
from ...webhooks.http.shown_href import shown_href


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscriber:
    """A webhook that is to be called of changes of a task.

    Attributes:
        webhook_href: Where to call.
        task_href: What the call names as its source; None takes the default.
        event: One of `TaskEvent`, None for all.
    """

    webhook_href: str
    task_href: str | None
    event: str | None


def subscriber_of(webhook_href: str | None, task_href: str | None, event: str | None) -> Subscriber | None:
    """Return the subscriber that the arguments of `start` name, None if they name none.

    Raises:
        SettingsError: If they say how to call a webhook, and not which.
    """
    if webhook_href is not None:
        return Subscriber(webhook_href=webhook_href, task_href=task_href, event=event)
    if event is not None or task_href is not None:
        raise SettingsError("event and task_href say how to call a webhook; pass webhook_href too")
    return None


def check_subscriber(subscriber: Subscriber, settings: Settings) -> None:
    """Check a subscriber before anything is written.

    Raises:
        TextTooLongError: If a URL is longer than its column.
        WebhookTargetError: If the URL is unusable, or leads where webhooks may not go in any case.
        EventError: If there is no such event.
        ArgumentsError: If the `task_href` is no text, or one that no column can hold.
        SettingsError: If no `task_href` was given and `taskstate_public_url` is not set.
    """
    for name, href in (("webhook_href", subscriber.webhook_href), ("task_href", subscriber.task_href)):
        if isinstance(href, str) and len(href) > HREF_LENGTH:
            raise TextTooLongError(f"{name} of {len(href)} characters is too long; its column holds {HREF_LENGTH}")
    check_href(subscriber.webhook_href, AllowedNetworks.parse(settings.webhook_allowed_networks))
    check_event(subscriber.event)
    if subscriber.task_href is None and settings.public_url is None:
        raise SettingsError("a subscription needs a task_href, or the setting taskstate_public_url")
    if subscriber.task_href is not None and not _is_storable_href(subscriber.task_href):
        raise ArgumentsError(f"task_href {subscriber.task_href!r} is no URL of a task; pass a text, or None")


def check_event(event: object) -> None:
    """Check an event that is subscribed to.

    Raises:
        EventError: If it is neither a `TaskEvent` nor None.
    """
    if event is not None and not (isinstance(event, str) and event in set(TaskEvent)):
        raise EventError(event)


def check_known_webhook(webhook_href: object) -> None:
    """Check a URL that may have been subscribed before, even if the settings allow it no longer.

    Raises:
        WebhookTargetError: If it is no text, or one that no column can hold.
    """
    if not _is_storable_href(webhook_href):
        raise WebhookTargetError(shown_href(webhook_href), "a text is needed, as it was subscribed")


def _is_storable_href(text: object) -> bool:
    """Tell whether this is a text that is not empty and that every database takes."""
    return isinstance(text, str) and bool(text.strip()) and is_storable(text)
