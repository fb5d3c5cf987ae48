"""The app of a worker that copies log records of tasks, while Celery is told to leave the root logger alone."""

from __future__ import annotations

import os

from tests.apps.factory import make_app

app, taskstate = make_app(
    os.environ["CELERY_BROKER_URL"],
    None,
    os.environ["TASKSTATE_DATABASE_URL"],
    flush_interval_seconds=0.1,
    capture_log_level="WARNING",
)
app.conf.worker_hijack_root_logger = False
# Whatever the order: the settings are read before Celery sets up the log.
assert taskstate.settings.capture_log_level
