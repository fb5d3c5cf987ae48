"""Receivers, and deployments whose webhooks may go to the loopback."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from qhana_taskstate.testing.receiver import WebhookReceiver

SECRET = "whsec_" + base64.b64encode(b"the first secret of the receivers").decode()

#: What lets tests see in seconds what takes minutes or days.
SOON: dict[str, Any] = {
    "webhook_allowed_networks": ["127.0.0.0/8"],
    "webhook_secrets": [SECRET],
    "webhook_retry_schedule": [0.2, 0.3, 0.5, 0.5, 1, 1, 2, 2],
    "webhook_timeout_seconds": 2,
    "webhook_min_interval_seconds": 0.2,
    "flush_interval_seconds": 0.1,
}


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    """A receiver that accepts everything that is signed."""
    with WebhookReceiver(secrets=[SECRET]) as running:
        yield running
