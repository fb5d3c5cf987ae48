"""Calls one webhook for a task of the host, with our HTTP client: within its limits, and to checked addresses only."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from .. import registry
from ..errors import WebhookTargetError
from ..settings.webhook_values import AllowedNetworks
from ..webhooks.http.client import Fault, Transport
from ..webhooks.http.message import call_url, headers

logger = logging.getLogger(__name__)

#: Name and arguments of the runner's task.
_NAME: Final = "call_webhook"
_ARGUMENTS: Final = frozenset({"webhook_url", "task_url", "event_type"})

#: How often the call is made again, and how long after the first time, in seconds; twice as long each time.
_RETRIES: Final = 3
_PAUSE_SECONDS: Final = 1.0


def is_caller(task: Any) -> bool:
    """Tell whether a Celery task is the host's own for the call of a webhook."""
    code = getattr(getattr(task.run, "__func__", task.run), "__code__", None)
    code = getattr(getattr(vars(task).get("_orig_run"), "__func__", None), "__code__", code)
    return task.name.rpartition(".")[2] == _NAME and code is not None and set(code.co_varnames) >= _ARGUMENTS


def call_webhook(host: Callable[..., Any], self: Any, webhook_url: str, task_url: str, event_type: str) -> None:
    """Call a webhook; again if it cannot be reached.

    Args:
        host: What the host's task does; done instead where the host tells subscribers itself.
        self: The Celery task.
        webhook_url: Where to call.
        task_url: Sent as `source`.
        event_type: Sent as `event`.

    Raises:
        WebhookTargetError: If webhooks may not go there.
        ConnectionError: If it could not be reached.
    """
    settings = registry.get().settings
    if not settings.webhooks:
        host(webhook_url=webhook_url, task_url=task_url, event_type=event_type)
        return
    transport = Transport(AllowedNetworks.parse(settings.webhook_allowed_networks), settings.webhook_timeout_seconds)
    try:
        sent = headers(uuid.uuid4().hex, datetime.now(UTC), b"", settings.webhook_secrets)
        answer = transport.post(call_url(webhook_url, task_url, event_type), headers=sent, body=b"")
    finally:
        transport.close()
    if not isinstance(answer, Fault):
        logger.info("%s answered %d to a call of %s", webhook_url.partition("?")[0], answer.status, event_type)
        return
    if answer.kind == "refused":
        raise WebhookTargetError(webhook_url, answer.reason)
    fault = ConnectionError(f"{webhook_url.partition('?')[0]} was not reached: {answer.reason}")
    pause = _PAUSE_SECONDS * 2**self.request.retries
    raise self.retry(exc=fault, countdown=pause, max_retries=_RETRIES)
