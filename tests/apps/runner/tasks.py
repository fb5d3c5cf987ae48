"""The Celery tasks and signals of the runner, with some of its faults."""

from __future__ import annotations

from typing import Any

from blinker import Namespace
from flask import current_app

from .core import CELERY
from .models import ProcessingTask

_SIGNALS = Namespace()
TASK_STATUS_CHANGED = _SIGNALS.signal("task-status-changed")
TASK_STEPS_CHANGED = _SIGNALS.signal("task-steps-changed")
TASK_DETAILS_CHANGED = _SIGNALS.signal("task-details-changed")


def _task(db_id: int) -> Any:
    return ProcessingTask.get_by_id(id_=db_id)  # type: ignore[attr-defined]  # of the one that takes its place


def _tell(signal: Any, db_id: int) -> None:
    signal.send(current_app._get_current_object(), task_id=db_id)  # type: ignore[attr-defined]  # of werkzeug's proxy


@CELERY.task(name="qhana-plugin-runner.add-step", bind=True, ignore_result=True)
def add_step(
    self: Any,
    task_log: str,
    db_id: int,
    step_id: str,
    href: str,
    ui_href: str,
    prog_value: int | None = None,
    prog_start: int = 0,
    prog_target: int = 100,
    prog_unit: str = "%",
) -> None:
    """Add a step, and let no step be open that it does not know."""
    raise NotImplementedError("the runner's own")


@CELERY.task(name="qhana-plugin-runner.save-result", bind=True, ignore_result=True)
def save_task_result(self: Any, task_log: str, db_id: int) -> None:
    """End a task well, though it may have ended already."""
    task = _task(db_id)
    task.task_status = "SUCCESS"
    task.add_task_log_entry(task_log)
    task.save(commit=True)
    _tell(TASK_STATUS_CHANGED, db_id)


@CELERY.task(name="qhana-plugin-runner.save-error", bind=True, ignore_result=True)
def save_task_error(self: Any, failing_task_id: str, db_id: int) -> None:
    """End a task badly, with the second log entry of that failure."""
    task = _task(db_id)
    task.task_status = "FAILURE"
    task.add_task_log_entry(f"None\n\nNone of {failing_task_id}")
    task.save(commit=True)
    _tell(TASK_STATUS_CHANGED, db_id)
