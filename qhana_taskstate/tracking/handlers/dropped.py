"""Handlers of signals about messages that end without running: revoked, unknown, unreadable."""

from __future__ import annotations

from typing import Any

from ...context.header import HEADER, ref_of_request
from ...facts import ExecutionKey, Failure, TaskRef
from ...failures import message_of
from ...states import ExecutionState
from ..listener import find, never_fails


@never_fails
def on_task_revoked(
    sender: Any, request: Any, terminated: bool = False, signum: Any = None, expired: bool = False, **_: Any
) -> None:
    """End an execution that was revoked, or that expired in the queue."""
    listener = find(sender.app)
    if listener is None:
        return
    if expired:
        failure = Failure(type="TaskRevokedError", message="expired before a worker could begin it")
    elif terminated:
        failure = Failure(type="TaskRevokedError", message=f"terminated while it ran (signal {_signal_name(signum)})")
    else:
        failure = Failure(type="TaskRevokedError", message="revoked before it began")
    listener.recorder.close_elsewhere(
        ref_of_request(request),
        ExecutionKey.of_request(request),
        request.id,
        sender.name,
        ExecutionState.REVOKED,
        failure,
    )


@never_fails
def on_task_unknown(sender: Any, message: Any, exc: BaseException, name: str, id: str, **_: Any) -> None:
    """End an execution whose Celery task no worker that got it knows."""
    failure = Failure(type="NotRegistered", message=f"the worker knows no task {name!r}; include its module there")
    _close_message(sender, message, name, failure)


@never_fails
def on_task_rejected(sender: Any, message: Any, exc: BaseException | None = None, **_: Any) -> None:
    """End an execution whose message the worker could not read."""
    message_text = f"the worker could not read the message: {message_of(exc) if exc is not None else None}"
    failure = Failure(type=type(exc).__name__, message=message_text)
    _close_message(sender, message, None, failure)


def _close_message(sender: Any, message: Any, name: str | None, failure: Failure) -> None:
    headers = message.headers or {}
    key = ExecutionKey.of_headers(headers)
    listener = find(sender.app)
    if key is not None and listener is not None:
        listener.recorder.close_elsewhere(
            TaskRef.decode(headers.get(HEADER)),
            key,
            key.celery_id,
            name or headers.get("task"),
            ExecutionState.REJECTED,
            failure,
        )


def _signal_name(signum: Any) -> str:
    return getattr(signum, "name", None) or str(signum)
