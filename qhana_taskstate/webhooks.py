"""The wire of a webhook: URL, body and signed headers of a call, and `verify` for those who receive it.

Follows Standard Webhooks 1.0.0 on top of QHAna's `POST webhook_href?source=&event=`. Knows no rows and sends nothing.
"""

from __future__ import annotations

import hmac
import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Final
from urllib.parse import quote

from standardwebhooks import Webhook

from .errors import WebhookVerificationError
from .webhook_values import check_secret

#: `type` of a message is this and the event: `qhana.task.status`, `qhana.task.steps`, `qhana.task.details`.
TYPE_PREFIX: Final = "qhana.task."

# A full stop would make id.timestamp.body ambiguous.
_MESSAGE_ID: Final = re.compile(r"[!-\-/-~]{1,200}")
_TIMESTAMP: Final = re.compile(r"[0-9]{1,11}")


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
        event: `status`, `steps` or `details`.
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
        found["webhook-signature"] = " ".join(_signature(secret, message_id, moment, text) for secret in secrets)
    return found


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a timestamp with a time zone is needed")
    # The library reads the clock face of every other zone as if it were UTC.
    return moment.astimezone(UTC)


def _signature(secret: str, message_id: str, moment: datetime, text: str) -> str:
    return Webhook(check_secret(secret)).sign(message_id, moment, text)


def verify(
    body: bytes | str,
    headers: Mapping[str, str],
    secrets: str | Sequence[str],
    *,
    tolerance_seconds: float = 300,
) -> dict[str, Any]:
    """Check a received webhook; for receivers.

    A message that passes may still be one that came before: keep the `webhook-id` or the `sequence` of what was
    handled. Only signatures of version `v1` are looked at.

    Args:
        body: The request's body as it came, before any parsing.
        headers: The request's headers, in whatever case.
        secrets: The secret that is shared with the sender, or several while one replaces another.
        tolerance_seconds: How far the message's timestamp may be from this machine's clock, either way.

    Returns:
        The message: `{"type", "timestamp", "data": {"task_id", "source", "event", "sequence", "status"}}`.

    Raises:
        WebhookVerificationError: If a header is missing or malformed, no signature fits, the timestamp is too far
            away, the body is no JSON object, or a secret is missing or has the wrong form.
    """
    text = _text(body)
    found = {str(name).lower(): value for name, value in headers.items()}
    message_id = _header(found, "webhook-id")
    stamp = _header(found, "webhook-timestamp")
    signatures = [given.encode() for given in _header(found, "webhook-signature").split()]
    if not _TIMESTAMP.fullmatch(stamp):
        raise WebhookVerificationError("webhook-timestamp is no number of seconds")
    expected = _expected(secrets, message_id, int(stamp), text)
    # Every pair is compared, so that the time taken tells nothing.
    fits = [hmac.compare_digest(ours, theirs) for ours in expected for theirs in signatures]
    if not any(fits):
        raise WebhookVerificationError("no signature fits: another secret, or the message was changed on its way")
    if abs(time.time() - int(stamp)) > tolerance_seconds:
        raise WebhookVerificationError(
            f"the message's time is more than {tolerance_seconds:g} s away: it is a repetition, or a clock is wrong"
        )
    return _object(text)


def _text(body: bytes | str) -> str:
    if isinstance(body, str):
        return body
    if not isinstance(body, (bytes, bytearray, memoryview)):
        raise WebhookVerificationError(f"the body is bytes as they came, not {type(body).__name__}")
    try:
        return bytes(body).decode()
    except UnicodeDecodeError:
        raise WebhookVerificationError("the body is no UTF-8") from None


def _header(found: Mapping[str, object], name: str) -> str:
    value = found.get(name)
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise WebhookVerificationError(f"the header {name} is missing or malformed")
    return value.strip()


def _expected(secrets: str | Sequence[str], message_id: str, stamp: int, text: str) -> list[bytes]:
    # A receiver may hand in what it found in its environment, such as None.
    given: Any = secrets
    known = list(given) if isinstance(given, Iterable) and not isinstance(given, (str, bytes)) else [given]
    if not known:
        raise WebhookVerificationError("there is no secret to verify with")
    try:
        moment = datetime.fromtimestamp(stamp, UTC)
        return [_signature(secret, message_id, moment, text).encode() for secret in known]
    except (ValueError, OverflowError, OSError) as exc:
        raise WebhookVerificationError(f"the message cannot be verified: {exc}") from None


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise WebhookVerificationError("the body is no JSON") from None
    if not isinstance(value, dict):
        raise WebhookVerificationError("the body is no JSON object")
    return value
