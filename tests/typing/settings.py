"""Keywords of `TaskState`."""

from __future__ import annotations

from celery import Celery

from qhana_taskstate import TaskState


def right(app: Celery) -> None:
    """Give settings of the right types."""
    TaskState(app, database_url="sqlite://", heartbeat_seconds=5, canvas_progress=False, webhook_secrets=["whsec_x"])
    TaskState(app, prune_after_seconds=None, capture_log_level="INFO", webhook_retry_schedule=(1, 2.5))


def wrong(app: Celery) -> None:
    """Give settings of wrong types, and one that does not exist."""
    TaskState(app, heartbeat_seconds="5")  # type: ignore[arg-type]
    TaskState(app, database_url=None)  # type: ignore[arg-type]
    TaskState(app, databse_url="sqlite://")  # type: ignore[call-arg]
    TaskState(app, webhook_retry_schedule=5)  # type: ignore[arg-type]
