"""The Celery app of a deployment: `celery -A worker worker`. Reads the environment; see docs/reference/settings.md."""

from __future__ import annotations

import os

from celery import Celery

from qhana_taskstate import TaskState

app = Celery(
    "worker",
    broker=os.environ.get("CELERY_BROKER_URL", "redis://localhost:6379/0"),
    backend=os.environ.get("CELERY_RESULT_BACKEND"),
    include=["qhana_taskstate.demo.plugin"],
)
taskstate = TaskState(app, environment=os.environ)
