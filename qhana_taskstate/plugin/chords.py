"""Lets a chord end where its task has ended before it: answers in the result backend for what will not run.

A result backend without chords of its own (a database, files) lets `celery.chord_unlock` ask again and again whether
every member of a header has a result. A member that does not begin any more would never have one.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable
from typing import Any, Final

from celery import Celery, states
from celery.canvas import maybe_signature
from celery.exceptions import ChordError, Ignore, TaskRevokedError
from celery.result import result_from_tuple

from ..context.current import current_execution
from ..context.execution import Execution
from ..states import CHORD_UNLOCK

logger = logging.getLogger(__name__)

_MARK: Final = "qhana_taskstate_ends_with_its_task"


def answer_revoked(execution: Execution, reason: str) -> None:
    """Store REVOKED for an execution that does not begin, and for what would follow it in its chain.

    As Celery does for a message that was revoked before it began. An execution that ran before has its result.

    Args:
        execution: The execution; its task has ended.
        reason: Why it does not begin.
    """
    request, task = execution.request, execution.task
    if request.is_eager or execution.closed or execution.elsewhere:
        return
    ignores = getattr(request, "ignore_result", None)
    ignores = task.ignore_result if ignores is None else ignores
    try:
        # Also tells the chord of a backend that counts the members of a header by itself.
        task.backend.mark_as_failure(
            request.id,
            TaskRevokedError(reason),
            request=request,
            store_result=not ignores or task.store_errors_even_if_ignored,
            call_errbacks=False,
            state=states.REVOKED,
        )
    except Exception as exc:
        # Whatever the drivers of result backends raise: the task state does not need them.
        logger.warning("no result could be stored for %s[%s]: %s", task.name, request.id, type(exc).__name__)


def install(app: Celery) -> None:
    """Let the task that waits for the header of a chord end with the task that it belongs to; twice is once.

    To be called before the worker's tracers are built, that is from `worker_init` (celery 5.5 to 5.7).
    """
    task: Any = app.tasks.get(CHORD_UNLOCK)
    if task is not None and not hasattr(task.run, _MARK):
        task.run = _ending_with_its_task(app, task.run)


def _ending_with_its_task(app: Celery, unlock: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(unlock)
    def run(group_id: Any, callback: Any, *args: Any, **kwargs: Any) -> Any:
        execution = current_execution()
        if execution is None or execution.name != CHORD_UNLOCK or not execution.task_ended:
            return unlock(group_id, callback, *args, **kwargs)
        ended = f"task {execution.ref.task_id} has already ended"
        _fail_body(app, callback, _cause(app, kwargs.get("result") or ()) or ended)
        raise Ignore(ended)

    setattr(run, _MARK, True)
    return run


def _cause(app: Celery, members: Iterable[Any]) -> str | None:
    """Return which member of a header has failed and why, in Celery's words; None if none is known to have."""
    try:
        for member in members:
            result: Any = result_from_tuple(member, app=app)
            if result.state == states.FAILURE:
                return f"Dependency {result.id} raised {result.result!r}"
    except Exception as exc:
        logger.debug("the header of a chord could not be asked for: %s", type(exc).__name__)
    return None


def _fail_body(app: Celery, body: Any, reason: str) -> None:
    """Store that the body of a chord failed, and call its errbacks, as Celery does for a failed header."""
    try:
        raise ChordError(reason)
    except ChordError as exc:
        backend: Any = app.backend
        try:
            backend.chord_error_from_stack(callback=maybe_signature(body, app=app), exc=exc)
        except Exception as fault:
            logger.warning("the body of a chord could not be failed: %s", type(fault).__name__)
