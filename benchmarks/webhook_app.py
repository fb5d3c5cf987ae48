"""The app whose tasks report progress all the time, for subscribers to hear of."""

from __future__ import annotations

import os
import time

from celery import Celery

from qhana_taskstate import TaskState, plugin_task, report_progress

app = Celery("reports", broker=os.environ["CELERY_BROKER_URL"])
app.conf.update(
    task_default_queue="reports",
    task_ignore_result=True,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    worker_cancel_long_running_tasks_on_connection_loss=False,
)
taskstate = TaskState(app, environment=os.environ)


@plugin_task(name="reports")
def reports(seconds: float, per_second: float) -> str:
    """Report progress so many times a second."""
    count = round(seconds * per_second)
    began = time.monotonic()
    for number in range(1, count + 1):
        time.sleep(max(0.0, began + number / per_second - time.monotonic()))
        report_progress(number, target=count, unit="reports")
    return f"{count} reports"
