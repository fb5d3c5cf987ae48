"""The Celery tasks of the runner that plugins put behind their own: `add_step`, `save_task_result`, `save_task_error`.

Their names and arguments are the runner's. They are tracked like every task with a `db_id`, so that their message is
not lost unnoticed, and one that comes after the end of its task is dropped before its body.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from celery.local import Proxy
from flask import current_app

from .. import registry
from ..failures import summary_of
from ..models.task import ProcessingTask
from ..states import TaskStatus
from .notices import TASK_DETAILS_CHANGED, TASK_STATUS_CHANGED, TASK_STEPS_CHANGED, tell

logger = logging.getLogger(__name__)

#: How Celery's ids look, unless somebody makes them.
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

#: How long an error handler waits for the end that the failed execution itself records, in seconds.
_END_SECONDS: Final = 5.0


def add_a_step(
    self: Any,
    task_log: Any,
    db_id: int,
    step_id: str,
    href: str,
    ui_href: str,
    prog_value: float | None = None,
    prog_start: float = 0,
    prog_target: float = 100,
    prog_unit: str = "%",
) -> None:
    """Add the next step of a task, its progress and a log entry, and commit.

    Asked for again while the same step is open, it does nothing.

    Args:
        self: The Celery task.
        task_log: A log entry; None for none.
        db_id: Id of the `ProcessingTask`.
        step_id: Id of the step.
        href: URL of its REST entry point.
        ui_href: URL of its micro frontend.
        prog_value: The progress; None shows how many steps there were, of one more.
        prog_start: The value at the beginning.
        prog_target: The value at the end.
        prog_unit: Name of the unit.

    Raises:
        KeyError: If there is no such task.
        AssertionError: If another step is open.
    """
    task = _task_of(db_id, "add_step")
    if task.is_finished:
        logger.info("no step %r is added to task %s, which has ended as %s", step_id, db_id, task.status)
        return
    newest = task.steps[-1] if task.steps else None
    if newest is not None and not newest.cleared and _is_same(newest, step_id, href, ui_href):
        logger.info("the step %r of task %s is open already", step_id, db_id)
        return
    if prog_value is None:
        prog_value, prog_start, prog_target, prog_unit = len(task.steps), 0, len(task.steps) + 1, ""
    task.add_next_step(href=href, ui_href=ui_href, step_id=step_id)
    task.progress_start, task.progress_target = prog_start, prog_target
    task.progress_value, task.progress_unit = prog_value, prog_unit
    entry = _entry_of(task_log)
    if entry is not None:
        task.add_task_log_entry(entry)
    task.save(commit=True)
    _tell(task.id, TASK_STEPS_CHANGED, TASK_DETAILS_CHANGED)


def save_a_result(self: Any, task_log: Any, db_id: int) -> None:
    """End a task as SUCCESS with a log entry, and commit; one that has ended stays as it is.

    As an error handler it does what `save_task_error` does.

    Args:
        self: The Celery task.
        task_log: The log entry, text or any other result; None for none.
        db_id: Id of the `ProcessingTask`.

    Raises:
        KeyError: If there is no such task.
    """
    if _is_failed_id(task_log, self.request.parent_id, db_id):
        save_an_error(self, task_log, db_id)
        return
    task = _task_of(db_id, "save_task_result")
    if task.is_finished:
        logger.info("a result of task %s comes late: it has ended as %s", db_id, task.status)
        return
    waits = task.has_uncleared_step
    # What the session has read is let go of, so that the receivers read the end.
    task.save(commit=True)
    if not registry.get().finish(task.id, log=_entry_of(task_log), status=TaskStatus.SUCCESS.value):
        # Two parts of a canvas may both take themselves for the last one.
        logger.info("a result of task %s comes late: somebody else has just ended it", db_id)
        return
    _tell(task.id, TASK_STATUS_CHANGED, TASK_DETAILS_CHANGED, *([TASK_STEPS_CHANGED] if waits else []))


def save_an_error(self: Any, failing_task_id: str, db_id: int) -> None:
    """End a task as failed; one that has ended stays as it is. Celery calls it with the id of what failed.

    What was tracked has recorded its failure and cause by itself; of anything else the cause is looked up in Celery's
    result backend.

    Args:
        self: The Celery task.
        failing_task_id: Celery id of the execution that failed.
        db_id: Id of the `ProcessingTask`.
    """
    state = registry.get()
    task = ProcessingTask.get_by_id(db_id)
    if task is None:
        logger.error("the failure of %s cannot be saved: there is no task %r", failing_task_id, db_id)
        return
    if not task.is_finished:
        owner = state.find(failing_task_id)
        if owner is None or owner.id != task.id:
            # Celery keeps no results of eager executions.
            cause = None if self.request.is_eager else _stored_cause(self.app, failing_task_id)
            entry = f"{failing_task_id} failed: {cause or 'its cause was not stored'}"
            state.finish(task.id, log=entry, status=TaskStatus.ERROR.value)
        elif not self.request.is_eager:
            # Celery sends the message of an error handler before it tells of the failure (celery 5.5 to 5.7).
            _wait_for_end(state, task.id)
    found = ProcessingTask.get_by_id(db_id)
    if found is not None and found.is_finished and not found.is_ok:
        _tell(found.id, TASK_STATUS_CHANGED, TASK_DETAILS_CHANGED)


def _is_failed_id(task_log: Any, parent_id: str | None, db_id: int) -> bool:
    """Tell whether Celery calls an error handler: with the id of what failed (5.5 to 5.7, `backends/base.py`)."""
    if not isinstance(task_log, str) or not task_log:
        return False
    if task_log == parent_id:
        return True
    if not _UUID.fullmatch(task_log):
        return False
    # An eager one has no parent in Celery 5.5.
    owner = registry.get().find(task_log)
    return owner is not None and str(owner.id) == str(db_id)


def _wait_for_end(state: Any, task_id: int) -> None:
    try:
        state.wait(task_id, timeout=_END_SECONDS)
    except TimeoutError:
        # Its worker died in between: upkeep ends it.
        logger.warning("a failure of task %s is not recorded yet", task_id)


def _task_of(db_id: int, caller: str) -> ProcessingTask:
    task = ProcessingTask.get_by_id(db_id)
    if task is None:
        raise KeyError(f"no ProcessingTask has the id {db_id!r}; {caller} needs the id of a saved task")
    return task


def _is_same(step: Any, step_id: str, href: str, ui_href: str) -> bool:
    return (step.step_id, step.href, step.ui_href) == (step_id, href, ui_href)


def _entry_of(task_log: Any) -> str | None:
    if task_log is None or task_log == "":
        return None
    if isinstance(task_log, str):
        return task_log
    try:
        return json.dumps(task_log)
    except (TypeError, ValueError):
        return repr(task_log)


def _stored_cause(app: Any, celery_id: str) -> str | None:
    try:
        cause = app.AsyncResult(celery_id).result
    except (NotImplementedError, OSError) as exc:
        # Without a backend, or with one that is away.
        logger.info("the cause of %s cannot be read: %s", celery_id, exc)
        return None
    if isinstance(cause, BaseException):
        return summary_of(cause)
    return None if cause is None else str(cause)


def _tell(task_id: int, *signals: Any) -> None:
    app = current_app._get_current_object()  # type: ignore[attr-defined]  # of werkzeug's proxy
    for signal in signals:
        tell(signal, app, task_id)


#: What stands behind the names of the runner's Celery tasks.
BODIES: Final[Mapping[str, Callable[..., None]]] = {
    "qhana-plugin-runner.add-step": add_a_step,
    "qhana-plugin-runner.save-result": save_a_result,
    "qhana-plugin-runner.save-error": save_an_error,
}


def _named(name: str) -> Any:
    return Proxy(lambda: registry.get().app.tasks[name])


add_step, save_task_result, save_task_error = (_named(name) for name in BODIES)
