"""How one execution left Celery's tracer, and what is to be recorded of it. Decides only; reads and writes nothing.

The ways out, for each version and pool, and who tells of them: docs/adr/0014-ways-out-of-the-tracer.md.
"""

from __future__ import annotations

import itertools
import sys
import traceback as traceback_module
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Final

from celery.exceptions import Reject, Retry, SoftTimeLimitExceeded
from celery.utils.serialization import UnpickleableExceptionWrapper

from ...facts import Failure
from ...failures import message_of, summary_of, without_statements
from ...states import FAILED_STATES, ExecutionState
from .contexts import contexts
from .traceback import beginning_at_plugin

#: The module of Celery's tracer.
_TRACER: Final = "celery.app.trace"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """All that is known of one execution between `task_prerun` and `task_postrun`.

    Attributes:
        state: Celery's word in `task_postrun`; None if the body, or what Celery does about its end, was interrupted.
        retval: What it returned or raised, as `task_postrun` has it; None with a state of None.
        in_flight: The exception that goes through the tracer while `task_postrun` is sent.
        succeeded: Whether `task_success` was sent.
        retried: What `task_retry` said: why there is another attempt.
        failure: What `task_failure` said.
        stored: What the body itself stored as its failed end (`update_state`).
        acks_late: Whether the broker keeps the message until the end.
        eager: Whether it ran without a message.
        in_pool_child: Whether its process has a parent that reports what ends it (prefork).
        awaited: Whether it is a member of a chord's header, whose body waits for its result.
    """

    state: str | None
    retval: Any = None
    in_flight: BaseException | None = None
    succeeded: bool = False
    retried: Failure | None = None
    failure: Failure | None = None
    stored: Failure | None = None
    acks_late: bool = False
    eager: bool = False
    in_pool_child: bool = False
    awaited: bool = False


@dataclass(frozen=True, slots=True)
class Close:
    """The execution has ended.

    Attributes:
        state: A closed state.
        failure: Why it failed.
    """

    state: ExecutionState
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class HandBack:
    """The broker delivers its message again."""


@dataclass(frozen=True, slots=True)
class Leave:
    """Somebody else tells of its end: the worker's parent, the request, or, once its lease has run out, upkeep."""


def decide(left: Exit) -> Close | HandBack | Leave:
    """Tell what an execution's way out of the tracer means (celery 5.5 to 5.7).

    Args:
        left: What is known of it.
    """
    rejected = left.in_flight if isinstance(left.in_flight, Reject) else left.retval
    if isinstance(rejected, Reject):
        return _rejected(rejected, acks_late=left.acks_late)
    match left.state:
        case ExecutionState.SUCCESS:
            return _returned(left)
        case ExecutionState.RETRY:
            return Close(ExecutionState.RETRY, retry_cause(left.retval))
        case ExecutionState.FAILURE:
            return Close(ExecutionState.FAILURE, left.failure or failure_of(left.retval))
        case ExecutionState.IGNORED:
            return Close(ExecutionState.FAILURE, left.stored) if left.stored else Close(ExecutionState.IGNORED)
    return _interrupted(left)


def decide_unseen(left: Exit) -> Close:
    """Tell what is to be recorded of an execution that left the tracer without a `task_postrun` that reached us."""
    if left.succeeded:
        return Close(ExecutionState.SUCCESS)
    if left.retried is not None:
        return Close(ExecutionState.RETRY, left.retried)
    if left.failure is not None:
        return Close(ExecutionState.FAILURE, left.failure)
    lost = Failure(type="FactLostError", message="how it ended could not be recorded; see the worker's log")
    return Close(ExecutionState.LOST, lost)


def retry_cause(retry: Any) -> Failure:
    """Describe why a task is tried again.

    Args:
        retry: Celery's `Retry`.
    """
    return failure_of(getattr(retry, "exc", None) or retry)


def _rejected(reject: Any, *, acks_late: bool) -> Close | HandBack:
    failure = Failure(type="Reject", message=_reason(reject.reason))
    if not reject.requeue:
        return Close(ExecutionState.REJECTED, failure)
    if acks_late:
        return HandBack()
    # The broker has forgotten the message: it was acknowledged before the task began.
    return Close(
        ExecutionState.LOST, replace(failure, message=f"{failure.message}; cannot be requeued without acks_late")
    )


def _reason(reason: object) -> str:
    return summary_of(reason) if isinstance(reason, BaseException) else _text(reason)


def _returned(left: Exit) -> Close | Leave:
    if left.succeeded:
        return Close(ExecutionState.SUCCESS)
    if left.in_pool_child and _ends_a_process(left.in_flight):
        return Leave()
    if not left.awaited and _only_the_result_is_missing(left.in_flight):
        return Close(ExecutionState.SUCCESS)
    # The body returned, but publishing what comes next failed, or a limit struck meanwhile: no `task_success` and no
    # `task_failure` are sent then, and what follows may never run.
    return Close(ExecutionState.FAILURE, failure_in_flight(left.in_flight) if left.in_flight is not None else None)


def _only_the_result_is_missing(in_flight: BaseException | None) -> bool:
    """Tell whether the result backend failed to store a success; what follows was published before (`build_tracer`)."""
    if not isinstance(in_flight, Exception) or isinstance(in_flight, SoftTimeLimitExceeded):
        return False
    frames = [found.tb_frame for found in _frames(in_flight.__traceback__)]
    called = [
        following.f_code.co_name
        for frame, following in itertools.pairwise(frames)
        if frame.f_globals.get("__name__") == _TRACER
    ]
    return bool(called) and called[-1] == "mark_as_done"


def _interrupted(left: Exit) -> Close | Leave:
    exception = left.in_flight
    if exception is None:
        return Leave()
    if left.eager and isinstance(exception, Retry):
        # `task_eager_propagates` and `apply(throw=True)` raise it, and nothing is tried again.
        return Close(ExecutionState.FAILURE, failure_of(exception.exc or exception))
    if isinstance(exception, Exception):
        if not left.eager and any(isinstance(found, Retry) for found in _raised(exception)):
            # The next attempt was published before a hook or the result backend raised: it decides.
            return Close(ExecutionState.RETRY, failure_in_flight(exception))
        # A hook, the result backend, or a limit outside of the body: Celery tells of it, if at all, after
        # `task_postrun`, and then only of the last exception.
        return Close(ExecutionState.FAILURE, left.failure or failure_in_flight(exception))
    if left.in_pool_child or not _ends_a_process(exception):
        return Leave()
    return Close(ExecutionState.FAILURE, failure_in_flight(exception))


def _ends_a_process(exception: BaseException | None) -> bool:
    """Tell whether an exception is one that Celery lets pass (SystemExit, asyncio.CancelledError, …).

    Those with which gevent ends a greenlet are left to the worker, which knows why it does.
    """
    if exception is None or isinstance(exception, Exception):
        return False
    return not type(exception).__module__.startswith(("gevent", "greenlet"))


def failure_in_flight(exception: BaseException) -> Failure:
    """Describe an exception that is on its way through the tracer: the cause first, then what hides it.

    While Celery deals with what a body raised, a hook such as `on_failure`, or the result backend, may raise in its
    turn. Only that exception goes on, with the body's own as its context.
    """
    raised = _raised(exception)
    cause = failure_of(raised[-1], raised[-1].__traceback__)
    if len(raised) == 1:
        return cause
    hidden_by = "; ".join(failure_of(found).summary for found in reversed(raised[:-1]))
    return replace(cause, message=f"{cause.message}; and then, while Celery dealt with that: {hidden_by}")


def _raised(exception: BaseException) -> list[BaseException]:
    """Return what came out of the tracer and, last, what came out of the body, if that is another one."""
    chain = list(contexts(exception))
    place = next((place for place, found in enumerate(chain) if not _was_raised_by_celery(found)), 0)
    return chain[: place + 1]


def _was_raised_by_celery(exception: BaseException) -> bool:
    """Tell whether Celery's tracer raised an exception after the body had ended; False if the body raised it."""
    frames = [found.tb_frame for found in _frames(exception.__traceback__)]
    inside = [frame.f_globals.get("__name__") == _TRACER for frame in frames]
    if True not in inside:
        # It did not pass the tracer: it was raised and dealt with further in.
        return True
    following = inside.index(True) + 1
    # A worker calls bodies through the last one (celery 5.5 to 5.7, `_install_stack_protection`).
    return following < len(frames) and inside[following] and frames[following].f_code.co_name != "__protected_call__"


def _frames(traceback: TracebackType | None) -> Iterator[TracebackType]:
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next


def failure_of(exception: BaseException | None, traceback: Any = None, einfo: Any = None) -> Failure:
    """Describe an exception as Celery hands it to a signal.

    Args:
        exception: What was raised.
        traceback: Its traceback, or the text of it.
        einfo: Celery's `ExceptionInfo`.
    """
    text = getattr(einfo, "traceback", None)
    if text is None and traceback is not None:
        text = traceback if isinstance(traceback, str) else "".join(traceback_module.format_tb(traceback))
    cause = exception if exception is not None else getattr(einfo, "exception", None)
    # billiard wraps the exception together with its remote traceback.
    cause = getattr(cause, "exc", cause) if type(cause).__name__ == "ExceptionWithTraceback" else cause
    traceback_text = text and beginning_at_plugin(without_statements(str(text)))
    if isinstance(cause, UnpickleableExceptionWrapper):
        raised = sys.exc_info()[1]
        if raised is None or type(raised).__name__ != cause.exc_cls_name:
            message = ", ".join(_text(argument) for argument in cause.exc_args or ())
            return Failure(type=str(cause.exc_cls_name), message=message, traceback=traceback_text)
        # Celery hands on what it made of it, which has no notes and no causes, while the error itself is handled.
        cause = raised
    message = message_of(cause) if isinstance(cause, BaseException) else _text(cause)
    return Failure(type=type(cause).__name__, message=message, traceback=traceback_text)


def runs_again_after_timeout(task: Any) -> bool:
    """Tell whether the message of a task that met its hard limit goes back to the broker."""
    acknowledges = getattr(task, "acks_on_timeout", getattr(task, "acks_on_failure_or_timeout", True))
    return bool(task.acks_late) and not acknowledges


def stored_failure(state: str | None, meta: Any) -> Failure | None:
    """Describe the failed end that a body stored itself, with `update_state(state="FAILURE", meta=…)`.

    Args:
        state: What it said; another state than a failed one is none.
        meta: What it said of it: Celery's own form (`exc_type`, `exc_message`), an exception, a text, or any value.
    """
    if state not in FAILED_STATES:
        return None
    if isinstance(meta, BaseException):
        return failure_of(meta, meta.__traceback__)
    if not isinstance(meta, dict):
        return Failure(type=str(state), message="" if meta is None else _text(meta))
    kind = meta.get("exc_type")
    message = meta.get("exc_message")
    if message is None:
        rest = {key: value for key, value in meta.items() if key not in ("exc_type", "exc_module", "traceback")}
        message = ", ".join(f"{_text(key)}: {_text(value)}" for key, value in rest.items())
    elif isinstance(message, (list, tuple)):
        message = ", ".join(_text(part) for part in message)
    traceback = meta.get("traceback")
    return Failure(
        type=_text(kind) if kind else str(state),
        message=_text(message),
        traceback=traceback if isinstance(traceback, str) else None,
    )


def _text(value: object) -> str:
    try:
        return without_statements(str(value))
    except Exception as exc:
        return f"(its text cannot be had: {type(exc).__name__})"
