"""The wire of a webhook: URL, body and signed headers of a call."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Final
from urllib.parse import quote

from standardwebhooks import Webhook

from ...settings.webhook_values import check_secret

#: `type` of a message is this and the event, such as `qhana.task.status`.
TYPE_PREFIX: Final = "qhana.task."


# A full stop would make id.timestamp.body ambiguous.
_MESSAGE_ID: Final = re.compile(r"[!-\-/-~]{1,200}")


def call_url(webhook_href: str, task_href: str, event: str) -> str:
    """Return the URL of one call.

    Args:
        webhook_href: What was subscribed. Its query is kept to the letter, its fragment is dropped.
        task_href: Sent as `source`, so encoded that a receiver decodes it to exactly this text.
        event: Sent as `event`.
    """
    base = webhook_href.partition("#")[0]
    _, mark, query = base.partition("?")
    joint = "?" if not mark else "&" if query and not query.endswith("&") else ""
    return f"{base}{joint}source={quote(task_href, safe='')}&event={quote(event, safe='')}"


def message(*, task_id: int, source: str, event: str, sequence: int, status: str, timestamp: datetime) -> bytes:
    """Return the body of one call.

    Args:
        task_id: Id of the task.
        source: The `task_href`, unchanged.
        event: One of `TaskEvent`.
        sequence: Increases with each delivery of one subscription and event.
        status: Status of the task in the words of the wire.
        timestamp: When the event happened, aware.

    Returns:
        Compact JSON in UTF-8: `{"type": "qhana.task.<event>", "timestamp": "2026-11-23T10:00:00.000000Z",
        "data": {"task_id", "source", "event", "sequence", "status"}}`.

    Raises:
        ValueError: If the timestamp is naive.
    """
    body = {
        "type": f"{TYPE_PREFIX}{event}",
        "timestamp": _utc(timestamp).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "data": {"task_id": task_id, "source": source, "event": event, "sequence": sequence, "status": status},
    }
    return json.dumps(body, separators=(",", ":")).encode()


def headers(message_id: str, timestamp: datetime, body: bytes, secrets: Sequence[str]) -> dict[str, str]:
    """Return the headers of one call.

    Args:
        message_id: The same over all attempts of one delivery; printable ASCII without a full stop.
        timestamp: When this attempt is made, aware.
        body: As it is sent, UTF-8.
        secrets: Each adds a signature, in this order; none leaves `webhook-signature` out.

    Raises:
        ValueError: If the timestamp is naive, or the id or a secret (which is not shown) has the wrong form.
    """
    if not _MESSAGE_ID.fullmatch(message_id):
        raise ValueError(f"{message_id!r} is no webhook-id: printable ASCII without a full stop is needed")
    moment = _utc(timestamp)
    found = {
        "content-type": "application/json",
        "user-agent": f"qhana_taskstate/{version('qhana_taskstate')}",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(moment.timestamp())),
    }
    if secrets:
        text = body.decode()
        found["webhook-signature"] = " ".join(signature(secret, message_id, moment, text) for secret in secrets)
    return found


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a timestamp with a time zone is needed")
    # The library reads the clock face of every other zone as if it were UTC.
    return moment.astimezone(UTC)


def signature(secret: str, message_id: str, moment: datetime, text: str) -> str:
    return Webhook(check_secret(secret)).sign(message_id, moment, text)
