"""Who listens to a signal, and what happens when a handler fails."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy.exc import DBAPIError

from .. import current
from ..context.current import current_execution
from ..errors import DatabaseUnavailableError, SchemaError
from ..facts import Publication, TaskRef
from ..recording.tracker import Tracker

logger = logging.getLogger(__name__)


class Listener(Protocol):
    """What the handlers need of a `TaskState`."""

    @property
    def app(self) -> Celery:
        """The Celery app."""

    @property
    def tracker(self) -> Tracker:
        """Where facts go."""

    def adopt(
        self, name: str, kwargs: Mapping[str, Any], publication: Publication, *, redelivered: bool
    ) -> TaskRef | None:
        """Find or make the task that a plugin task's message belongs to by itself; None if that is not known yet."""

    def on_worker_start(self) -> None:
        """Check the schema and say what to do if it does not fit."""

    def on_pool_process_start(self) -> None:
        """Forget connections of the parent process, and take part in upkeep."""

    def on_ready(self) -> None:
        """Take part in upkeep from this process."""

    def on_parent_ready(self, timer: Any) -> None:
        """Let the event loop of a prefork pool's parent write what waits for the database."""

    def on_leaving(self) -> None:
        """Write what waits for the database before this process ends."""


def find(app: Celery | None) -> Listener | None:
    """Return the listener of an app, or of the process for None; None where there is none."""
    found: Listener | None = current.find(app)
    return found


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
    raises: without the second run an execution would begin or end without a word. What Celery lets pass goes on
    afterwards.
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
    return listener is not None and listener.tracker.backlog.note(exc)


def end_bare() -> None:
    """Let it at least be told that an execution ended, if it has; a running one is left to its `task_postrun`."""
    execution = current_execution()
    if execution is not None and execution.leaves:
        listener = find(execution.task.app)
        if listener is not None and execution.known:
            listener.tracker.end_unseen(execution)
        execution.leave()
