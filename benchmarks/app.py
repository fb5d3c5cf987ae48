"""The app whose worker runs the same no-op bare and tracked."""

from __future__ import annotations

import os

from celery import Celery

from qhana_taskstate import TaskState, plugin_task

app = Celery("benchmarks", broker=os.environ["CELERY_BROKER_URL"])
app.conf.update(
    task_default_queue="benchmarks",
    task_ignore_result=True,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
)
taskstate = TaskState(app, environment=os.environ)


@app.task(name="bare", ignore_result=True)
def bare() -> None:
    """Do nothing, as Celery does it alone."""


@plugin_task(name="tracked", ignore_result=True)
def tracked() -> None:
    """Do nothing, with a row that says so."""
