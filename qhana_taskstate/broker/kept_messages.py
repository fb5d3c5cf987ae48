"""Messages of tasks with `resend=True`: kept when published, sent again as they were."""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping
from typing import Any, Final

from celery import Celery
from kombu import serialization
from kombu.exceptions import EncodeError
from kombu.utils import json

from ..context.header import HEADER
from ..facts import KeptMessage, TaskRef
from ..texts import refuse_unstorable

logger = logging.getLogger(__name__)

_BINARY: Final = frozenset({"binary", "ascii-8bit"})


def keep(
    app: Celery,
    name: str,
    *,
    body: Any,
    headers: Mapping[str, Any],
    properties: Mapping[str, Any],
    exchange: Any,
    routing_key: str | None,
) -> KeptMessage | None:
    """Copy a message that is about to be published, as `before_task_publish` shows it.

    Args:
        app: The Celery app.
        name: Name of the Celery task.
        body: Arguments and what follows.
        headers: Its headers.
        properties: Its properties.
        exchange: Where it goes.
        routing_key: Where it goes.

    Returns:
        The message; None if it cannot be written as text, which is logged without its contents.
    """
    # The signal does not tell a serializer chosen for one call (celery 5.7).
    serializer = getattr(app.tasks.get(name), "serializer", None) or app.conf.task_serializer
    try:
        content_type, encoding, payload = serialization.dumps(body, serializer)
        message = KeptMessage(
            exchange=str(getattr(exchange, "name", exchange) or ""),
            routing_key=routing_key or "",
            content_type=content_type,
            content_encoding=encoding,
            body=as_text(payload, encoding),
            headers=json.dumps(dict(headers)),
            properties=json.dumps(dict(properties)),
        )
        for text in (message.body, message.exchange, message.routing_key):
            # Sent again it must be as it was.
            refuse_unstorable(text, "the message")
        return message
    except (EncodeError, TypeError, ValueError) as exc:
        logger.warning("a message of %s cannot be kept and will not be sent again: %s", name, type(exc).__name__)
        return None


def send(app: Celery, message: KeptMessage, ref: TaskRef, queue: str) -> None:
    """Send a kept message again, with its old Celery id. No signal tells of it.

    Args:
        app: The Celery app.
        message: The message.
        ref: Its task.
        queue: The queue that it goes to, which is made if it is gone.

    Raises:
        Exception: Whatever kombu raises if the broker cannot be reached.
    """
    queues: Any = app.amqp.queues
    declared = [queues[queue]] if queue in queues or queues.create_missing else []
    payload: Any = from_text(message.body, message.content_encoding)
    with app.producer_or_acquire() as producer:
        producer.publish(
            payload,
            content_type=message.content_type,
            content_encoding=message.content_encoding,
            headers={**json.loads(message.headers), HEADER: ref.encode()},
            exchange=message.exchange,
            routing_key=message.routing_key,
            delivery_mode=app.conf.task_default_delivery_mode,
            declare=declared,
            **json.loads(message.properties),
        )


def send_again(app: Celery, message: KeptMessage, ref: TaskRef, queue: str) -> None:
    """Do as `send`, for one that is sent again later if this fails."""
    try:
        send(app, message, ref, queue)
    except Exception as exc:
        # It is missed and sent again later.
        logger.warning("a message of task %s could not be sent again now: %s", ref.task_id, type(exc).__name__)


def as_text(payload: bytes | str, encoding: str) -> str:
    """Return what a serializer made as text; base64 for what is no text."""
    if isinstance(payload, str):
        return payload
    return base64.b64encode(payload).decode("ascii") if encoding in _BINARY else payload.decode(encoding)


def from_text(text: str, encoding: str) -> bytes | str:
    """Return what `as_text` was given."""
    return base64.b64decode(text) if encoding in _BINARY else text
