"""One call of a subscriber: what it is made from, and making it."""

from __future__ import annotations

import dataclasses
import random
from datetime import UTC, datetime

from ..events import TaskEvent
from ..settings.values import Settings
from .http import message
from .http.answers import Verdict, decide
from .http.client import Transport


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call that is to be made now.

    Attributes:
        delivery_id: Id of the delivery.
        lease: Names the right to make it.
        task_id: Id of the task.
        event: What is told.
        webhook_href: Where to call.
        task_href: What to name as the source.
        message_id: The `webhook-id`.
        sequence: Number of the message.
        attempt: How many calls were made since the last success, this one counted.
        changed_at: When what is told happened.
        status: Status of the task now, in the words of the wire.
        host: Host and port that are called.
    """

    delivery_id: int
    lease: str
    host: str
    task_id: int
    event: TaskEvent
    webhook_href: str
    task_href: str
    message_id: str
    sequence: int
    attempt: int
    changed_at: datetime
    status: str


def make_call(call: Call, transport: Transport, settings: Settings) -> Verdict:
    """Make a call, and return what its answer means."""
    try:
        url = message.call_url(call.webhook_href, call.task_href, call.event.value)
        body = message.message(
            task_id=call.task_id,
            source=call.task_href,
            event=call.event.value,
            sequence=call.sequence,
            status=call.status,
            timestamp=call.changed_at,
        )
        headers = message.headers(call.message_id, datetime.now(UTC), body, settings.webhook_secrets)
    except ValueError as exc:
        # What another program wrote into the subscription; the calls of others must go on.
        return Verdict("refused", None, f"no call can be made of it: {type(exc).__name__}")
    result = transport.post(url, headers=headers, body=body)
    return decide(
        result,
        attempt=call.attempt,
        schedule=settings.webhook_retry_schedule,
        now=datetime.now(UTC),
        random=random.random,
    )
