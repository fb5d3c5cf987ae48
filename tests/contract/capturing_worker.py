"""The app of a worker that copies log records of tasks into their log."""

from __future__ import annotations

import logging
import os

from qhana_taskstate import plugin_task
from tests.apps.factory import make_app

app, taskstate = make_app(
    os.environ["CELERY_BROKER_URL"],
    None,
    os.environ["TASKSTATE_DATABASE_URL"],
    flush_interval_seconds=0.1,
    capture_log_level="WARNING",
)


@plugin_task(name="contract.log_record")
def log_record(text: str) -> None:
    """Emit a record of the standard library's logging."""
    logging.getLogger("some.library").warning("%s", text)
