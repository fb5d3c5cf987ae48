"""Asks the workers to drop messages: of a cancelled task, and one that was given up."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from celery import Celery

logger = logging.getLogger(__name__)


def revoke_for(app: Celery, task_id: int, celery_ids: Sequence[str], *, terminate: bool) -> None:
    """Ask the workers to drop the messages of a cancelled task; a broker that is away is only logged.

    Args:
        app: The Celery app.
        task_id: Id of the task.
        celery_ids: The messages.
        terminate: Also terminate what runs (prefork and gevent pools).
    """
    if not celery_ids:
        return
    try:
        app.control.revoke(celery_ids, terminate=terminate)
    except Exception as exc:
        # What has not begun finds its task ended; only `terminate` is lost.
        logger.warning("workers could not be told that task %s is cancelled: %s", task_id, exc)


def revoke(app: Celery, celery_id: str) -> None:
    """Ask the workers to drop a message; a broker that is away is only logged.

    Args:
        app: The Celery app.
        celery_id: Celery's id of the message.
    """
    try:
        app.control.revoke(celery_id)
    except Exception as exc:
        logger.warning("workers could not be told to drop %s: %s", celery_id, type(exc).__name__)
