"""The app of workers whose passwords and arguments must not be seen: everything comes from the environment."""

from __future__ import annotations

import os
import time

from celery import Celery

from qhana_taskstate import TaskState, plugin_task

app = Celery("secrets", broker=os.environ["CELERY_BROKER_URL"], backend=os.environ.get("CELERY_RESULT_BACKEND"))
app.conf.update(
    task_default_queue="secrets",
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=True,
    worker_prefetch_multiplier=1,
)
taskstate = TaskState(app, environment=os.environ)


@plugin_task
def works(password: str, seconds: float = 0.0) -> str:
    """Work with a password."""
    time.sleep(seconds)
    return "worked"


@plugin_task
def fails(password: str) -> None:
    """Fail with a password."""
    raise LookupError("no such account")


@plugin_task(bind=True, max_retries=1)
def tries_again(self, password: str) -> None:  # type: ignore[no-untyped-def]  # Celery's own task
    """Fail twice with a password."""
    raise self.retry(exc=LookupError("no such account"), countdown=0.1)
