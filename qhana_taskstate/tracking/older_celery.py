"""What the worker parent of Celery 5.5 and 5.6 leaves undone when a pool child ends, done as Celery 5.7 does it."""

from __future__ import annotations

import logging
from typing import Any, Final

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback  # type: ignore[attr-defined]  # not in the stubs
from billiard.exceptions import WorkerLostError
from celery import states
from celery.utils.serialization import UnpickleableExceptionWrapper
from celery.worker.request import Request

logger = logging.getLogger(__name__)

#: Whether this is Celery 5.5 or 5.6.
IN_USE: Final = not hasattr(Request, "_success_was_stored")


def exception_of(exc_info: Any) -> BaseException:
    """Give the exception itself; billiard wraps it together with its remote traceback."""
    exc: BaseException = exc_info.exception
    return exc.exc if isinstance(exc, ExceptionWithTraceback) else exc


def is_exit(exc_info: Any) -> bool:
    """Tell whether a task ended the pool child that ran it, by an exception."""
    return isinstance(exception_of(exc_info), (SystemExit, KeyboardInterrupt))


def storable(exc_info: Any) -> Any:
    """Put an exception that Celery can store in the place of one that it cannot.

    A pool child hands on whatever a task raised (billiard 4.3), and the parent of celery 5.5 and 5.6 fails with an
    `EncodeError` at what is no `Exception`: no result, no signal, no errback. An exit means that the child is gone, as
    celery 5.7 says it; anything else gets Celery's own stand-in, which keeps name and text.
    """
    exc = exception_of(exc_info)
    if isinstance(exc, Exception):
        return exc_info
    try:
        raise _stand_in(exc)
    except (WorkerLostError, UnpickleableExceptionWrapper):
        replacement = ExceptionInfo()
    replacement.traceback = exc_info.traceback
    return replacement


def _stand_in(exc: BaseException) -> WorkerLostError | UnpickleableExceptionWrapper:
    if isinstance(exc, SystemExit):
        code = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
        return WorkerLostError(f"Worker exited prematurely: exitcode {code}.")
    if isinstance(exc, KeyboardInterrupt):
        return WorkerLostError("Worker exited prematurely: KeyboardInterrupt.")
    wrapped: UnpickleableExceptionWrapper = UnpickleableExceptionWrapper.from_exception(exc)  # type: ignore[arg-type]
    return wrapped


def success_was_stored(request: Any) -> bool:
    """Tell whether the result backend holds a success of a message whose pool child is lost.

    Results of `rpc://` lie in a queue of the caller, and an ignored one is not stored: those are not looked for.
    """
    backend = request.task.backend
    if request.ignore_result or backend.as_uri().startswith("rpc:"):
        return False
    try:
        return bool(backend.get_task_meta(str(request.id), cache=False)["status"] == states.SUCCESS)
    except Exception as exc:
        logger.debug("no result of %s: %s", request.id, type(exc).__name__)
        return False
