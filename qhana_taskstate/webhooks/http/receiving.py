"""`verify`: for those who receive webhooks."""

from __future__ import annotations

import hmac
import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from ...errors import WebhookVerificationError
from .message import signature

_TIMESTAMP: Final = re.compile(r"[0-9]{1,11}")


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
        return [signature(secret, message_id, moment, text).encode() for secret in known]
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
