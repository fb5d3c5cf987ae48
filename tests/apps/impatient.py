"""As `tests.apps.worker`, with a process that looks for lost work every fifth of a second."""

from __future__ import annotations

import os

from tests.apps.factory import make_app

app, taskstate = make_app(
    os.environ["CELERY_BROKER_URL"],
    os.environ.get("CELERY_RESULT_BACKEND"),
    os.environ["TASKSTATE_DATABASE_URL"],
    flush_interval_seconds=0.1,
    heartbeat_seconds=0.4,
    lost_after_seconds=1.2,
)
