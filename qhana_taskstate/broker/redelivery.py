"""How long the broker takes to deliver a message again that was not acknowledged."""

from __future__ import annotations

from celery import Celery

#: kombu's default, and how long after it a message may still come (kombu 5.7, Redis); and what we allow for.
_VISIBILITY_SECONDS, _SWEEP_SECONDS, _MARGIN_SECONDS = 3600.0, 100.0, 60.0


def redelivery_seconds(app: Celery) -> float:
    options = app.conf.broker_transport_options or {}
    url = app.conf.broker_write_url or app.conf.broker_url or ""
    if str(url).startswith(("redis", "rediss", "sentinel", "sqs")):
        # kombu's Redis transport restores what was not acknowledged after the visibility timeout, at a sweep of
        # every 10 s of which it skips nine (kombu 5.7: 100 s).
        return float(options.get("visibility_timeout", _VISIBILITY_SECONDS)) + _SWEEP_SECONDS + _MARGIN_SECONDS
    return _MARGIN_SECONDS
