"""Makes the Celery app of workers and of tests from the same parts."""

from __future__ import annotations

from typing import Any

from celery import Celery

from qhana_taskstate import TaskState, registry


def make_app(
    broker_url: str | None, result_backend: str | None, database_url: str | None, **settings: Any
) -> tuple[Celery, TaskState]:
    """Make an app with a `TaskState`; settings are those of `TaskState`."""
    app = Celery("jobs", broker=broker_url, backend=result_backend, include=["tests.apps.jobs"])
    app.conf.update(
        task_default_queue="jobs",
        broker_connection_retry_on_startup=True,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_transport_options={"visibility_timeout": 3600},
        task_publish_retry_policy={"max_retries": 1, "interval_start": 0, "interval_step": 0.1},
    )
    given: dict[str, Any] = {"database_url": database_url} if database_url else {}
    return app, TaskState(app, **given, **settings)


def close_state(state: TaskState) -> None:
    """Close what a `TaskState` of this process has opened, and its app; nobody finds it any more.

    The process would keep it and all tasks of its app otherwise, thousands of them in a run.
    """
    state.close()
    state.app.close()
    registry.forget(state)
