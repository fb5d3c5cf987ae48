"""The app that workers of the tests run: everything comes from the environment."""

from __future__ import annotations

import os

from tests.apps.factory import make_app

app, taskstate = make_app(
    os.environ["CELERY_BROKER_URL"],
    os.environ.get("CELERY_RESULT_BACKEND"),
    os.environ["TASKSTATE_DATABASE_URL"],
    flush_interval_seconds=0.1,
)
