"""What the handlers of signals share: the parts they record with, and what happens when one fails."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, Protocol

from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy.exc import DBAPIError

from .. import registry
from ..context.current import current_execution
from ..errors import DatabaseUnavailableError, SchemaError
from ..plugin.task_class import PluginTask
from ..recording.execution_recorder import ExecutionRecorder

logger = logging.getLogger(__name__)


class Listener(Protocol):
    """What the handlers need of the parts of a `TaskState`."""

    @property
    def app(self) -> Celery:
        """The Celery app."""

    @property
    def recorder(self) -> ExecutionRecorder:
        """Where facts go."""

    @property
    def task_class(self) -> type[PluginTask]:
        """The class of plugin tasks."""


#: Returns the listener of an app, or of the process for None; None where there is none.
find: Callable[[Celery | None], Listener | None] = registry.parts


def never_fails(handler: Callable[..., None]) -> Callable[..., None]:
    """Keep a fault of ours away from the task; Celery would only log that a handler raised."""

    @functools.wraps(handler)
    def guarded(sender: Any = None, **arguments: Any) -> None:
        try:
            handler(sender, **arguments)
        except Exception as exc:
            if not _is_noted(exc):
                logger.exception("%s of %s could not be recorded", handler.__name__, getattr(sender, "name", sender))

    return guarded


def done_twice(handler: Callable[..., None]) -> Callable[..., None]:
    """Run a handler again if something strikes inside it: a soft time limit, a cancellation, a fault of ours.

    What it did is safe to repeat. A limit strikes once, wherever the process is, and Celery drops what a handler
    raises: without the second run an execution would begin or end without a word. What is no `Exception` is raised
    again afterwards, since Celery lets it pass.
    """

    @functools.wraps(handler)
    def guarded(sender: Any = None, **arguments: Any) -> None:
        try:
            handler(sender, **arguments)
        except BaseException as exc:
            _again(handler, sender, arguments, exc)
            if not isinstance(exc, Exception):
                raise

    return guarded


def _again(handler: Callable[..., None], sender: Any, arguments: dict[str, Any], struck: BaseException) -> None:
    name = getattr(sender, "name", sender)
    if isinstance(struck, SoftTimeLimitExceeded):
        logger.info("the soft time limit of %s struck in %s, which is done again", name, handler.__name__)
        execution = current_execution()
        if execution is not None:
            execution.limit = struck
    elif isinstance(struck, Exception) and not _is_noted(struck):
        logger.warning("%s of %s failed and is tried again: %s", handler.__name__, name, type(struck).__name__)
    try:
        handler(sender, **arguments)
    except Exception as exc:
        if not _is_noted(exc):
            logger.exception("%s of %s could not be recorded", handler.__name__, name)
        end_bare()


def _is_noted(exc: Exception) -> bool:
    """Tell whether the database is away, or lacks the tables, of which one line is said and not one per signal."""
    listener = find(None) if isinstance(exc, (DBAPIError, DatabaseUnavailableError, SchemaError)) else None
    return listener is not None and listener.recorder.backlog.note(exc)


def end_bare() -> None:
    """Record at least that an execution ended, if it has; a running one is left to its `task_postrun`."""
    execution = current_execution()
    if execution is not None and execution.leaves:
        if execution.known:
            execution.recorder.end_unseen(execution)
        execution.leave()
