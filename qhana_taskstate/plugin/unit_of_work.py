"""The unit of work of a plugin function: its session, its commit, its log entry."""

from __future__ import annotations

import functools
import inspect
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

from celery import Task
from celery.exceptions import Ignore, Reject, Retry
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from ..context.current import current_execution
from ..context.execution import Execution
from ..database.sessions.open_writes import has_open_write
from ..events import TaskEvent
from ..models.changes import raised_events
from ..recording.exits.interruption import interruption_behind
from ..store.log import entries
from . import chords
from .arguments import TASK_ID_PARAMETER
from .coroutines import run_coroutine
from .task_class import PluginTask

logger = logging.getLogger(__name__)


def with_bookkeeping(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        execution = current_execution()
        if execution is None or execution.function is not function or execution.entered:
            return function(*args, **kwargs)
        execution.entered = True
        return _conduct(execution, function, args, kwargs)

    return run


def _conduct(execution: Execution, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run the body of a plugin task as one unit of work.

    The commit is inside the task's own call, since Celery publishes what comes next right after it (celery
    5.5 to 5.7, `build_tracer`): the next execution sees what this one wrote.
    """
    if execution.limit is not None:
        # It struck before the body began, where Celery drops what a signal handler raises.
        raise execution.limit
    if execution.task_ended and not execution.task.runs_after_end:
        ended = f"task {execution.ref.task_id} has already ended"
        chords.answer_revoked(execution, ended)
        raise Ignore(ended)
    if execution.elsewhere or execution.closed:
        # Its message was delivered again (kombu's visibility timeout, a connection that broke before it was
        # acknowledged): what it did once is not done twice.
        raise Ignore("its message was delivered again; it " + ("runs already" if execution.elsewhere else "has ended"))
    sessions = execution.recorder.sessions
    task: PluginTask = execution.task
    if TASK_ID_PARAMETER in task.plugin_signature.parameters:
        kwargs = task.with_task_id(args[1:] if _is_bound(task) else args, kwargs, execution.ref.task_id)
    try:
        result = function(*args, **kwargs)
        if inspect.iscoroutine(result):
            result = run_coroutine(result)
    except (Ignore, Retry, Reject):
        if execution.inherited:
            _end_fork(execution)
        sessions.current.commit()
        raise
    except BaseException:
        if execution.inherited:
            _end_fork(execution)
        _roll_back(sessions.current)
        raise
    if execution.inherited:
        _end_fork(execution)
    conclude(execution, result)
    return result


def conclude(execution: Execution, result: Any) -> None:
    """Commit what a body that returned has left in its session, with the log entry that it returned."""
    sessions = execution.recorder.sessions
    if isinstance(result, str) and result and not _is_followed(execution.request):
        execution.lines.append(result)
    if not sessions.untouched:
        _commit(execution, sessions.current)


def _roll_back(session: Session) -> None:
    """Roll back; what ended the body is not hidden by a connection that cannot.

    A limit may have struck in the middle of a statement, and then the driver can do nothing more with its connection.
    """
    try:
        session.rollback()
    except Exception as exc:
        logger.info("a connection is dropped, since it cannot roll back: %s", type(exc).__name__)
        session.invalidate()


def _commit(execution: Execution, session: Session) -> None:
    in_flight = sys.exc_info()[1]
    try:
        if has_open_write(session):
            _write_lines(execution, session)
        session.commit()
    except DBAPIError as exc:
        interruption = interruption_behind(exc, in_flight)
        if interruption is None:
            raise
        _roll_back(session)
        raise interruption from None


def _end_fork(execution: Execution) -> None:
    """End this process, which the plugin has forked and which came out of its function.

    Celery would let it acknowledge its parent's message, and write to its parent's sockets.
    """
    logger.error(
        "the process %d, which %s has forked, came out of the plugin function and is ended; end it with os._exit",
        os.getpid(),
        execution.name,
        exc_info=sys.exc_info()[0] is not None,
    )
    os._exit(1)


def _write_lines(execution: Execution, session: Session) -> None:
    """Let log entries be committed together with the changes that they speak of, such as a new step."""
    with execution.writing:
        lines = execution.take_lines()
        try:
            session.flush()
            entries.append(session.connection(), execution.ref.task_id, lines)
            if lines:
                raised_events.note(session, execution.ref.task_id, TaskEvent.DETAILS)
        except BaseException:
            execution.lines.extendleft(reversed(lines))
            raise


def _is_bound(task: Task[Any, Any]) -> bool:
    return not isinstance(inspect.getattr_static(type(task), "run"), staticmethod)


def _is_followed(request: Any) -> bool:
    # A `request.group` does not count: the body of a chord has one too, and nothing follows that (celery 5.7).
    return any(getattr(request, name, None) for name in ("chain", "chord", "callbacks"))
