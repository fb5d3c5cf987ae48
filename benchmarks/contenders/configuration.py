"""What all contenders have in common."""

from __future__ import annotations

from celery import Celery


def configure(app: Celery) -> Celery:
    """Give an application a queue of its own and the settings that all contenders share."""
    app.conf.update(
        task_default_queue=f"benchmarks.{app.main}",
        broker_connection_retry_on_startup=True,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
    )
    return app
