"""Handlers of signals that tell of executions, and the one place that connects all handlers."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from billiard.exceptions import TimeLimitExceeded
from billiard.process import current_process
from celery import signals
from celery.exceptions import Reject
from celery.states import SUCCESS

from ..clock import now
from ..context.current import current_execution, current_publisher, enter, forget_left, note_left, reported
from ..context.execution import Execution, Publisher
from ..context.header import HEADER, OWN_TASK_PREFIX, ref_of_request
from ..facts import ExecutionKey, Failure, Publication, TaskRef
from ..failures import message_of
from ..plugin.decorator import hear_states
from ..plugin.task_class import is_plugin_task
from ..plugin.unit_of_work import conclude
from ..recording.exits.decision import Close, Exit, HandBack, decide, failure_of, runs_again_after_timeout
from ..recording.exits.stacks import is_on_stack
from ..recording.tracker import Tracker
from ..states import ExecutionState
from .adopting import adopt
from .lifecycle import on_leaving, on_worker_init, on_worker_process_init, on_worker_ready
from .listener import Listener, done_twice, end_bare, find, never_fails
from .publishing import on_after_task_publish, on_before_task_publish
from .selection import is_plain, select_one

logger = logging.getLogger(__name__)


def connect() -> None:
    """Listen to Celery's signals; twice is once."""
    for signal, handler in (
        (signals.before_task_publish, on_before_task_publish),
        (signals.after_task_publish, on_after_task_publish),
        (signals.task_prerun, on_task_prerun),
        (signals.task_success, on_task_success),
        (signals.task_failure, on_task_failure),
        (signals.task_postrun, on_task_postrun),
        (signals.task_revoked, on_task_revoked),
        (signals.task_unknown, on_task_unknown),
        (signals.task_rejected, on_task_rejected),
        (signals.worker_init, on_worker_init),
        (signals.worker_process_init, on_worker_process_init),
        (signals.worker_ready, on_worker_ready),
        (signals.worker_process_shutdown, on_leaving),
        (signals.worker_shutdown, on_leaving),
    ):
        # Receivers are held weakly by default, and so would vanish (celery 5.7).
        signal.connect(handler, weak=False, dispatch_uid=f"qhana_taskstate.{handler.__name__}")


@done_twice
def on_task_prerun(
    sender: Any, task: Any, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **_: Any
) -> None:
    """Make the execution the current one, and record that it runs."""
    listener = find(task.app)
    if listener is None or task.name.startswith(OWN_TASK_PREFIX):
        return
    execution = _execution_of(task) or _enter(listener, task, args or (), kwargs or {})
    if execution is not None:
        _begin(listener.tracker, execution)


def _enter(listener: Listener, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Execution | None:
    """Make the execution of a request the current one; None if it belongs to no task."""
    request = task.request
    key = ExecutionKey.of_request(request)
    if key is None:
        return None
    outer = _outer(listener)
    select_one(task, listener.tracker.settings.track)
    ref = ref_of_request(request)
    if ref is None and request.is_eager:
        publisher = current_publisher()
        ref = publisher.ref if isinstance(publisher, Publisher) else None
    if ref is None and is_plugin_task(task):
        publication = Publication(key, task.name, request.parent_id, None, now(), None, sent=True)
        redelivered = bool((request.delivery_info or {}).get("redelivered"))
        ref = adopt(listener, task, args, kwargs, publication, redelivered=redelivered)
        key = publication.key
        if ref is not None and request.is_eager:
            # A further attempt is called with the headers of this one, outside of it (celery 5.5 to 5.7).
            request.headers = {**(request.headers or {}), HEADER: ref.encode()}
    if ref is None:
        return None
    if request.is_eager and outer is not None:
        if not task.app.conf.task_always_eager:
            # A call of `apply` inside a task: no message, but a part of the task that called it.
            return None
        if outer.key == key:
            # Celery's `apply` forgets that a replacement is one (celery 5.7).
            key = replace(key, nesting=key.nesting + 1)
    execution = Execution(
        ref,
        key=key,
        name=task.name,
        task=task,
        request=request,
        function=task.plugin_function if is_plugin_task(task) else None,
        acks_late=bool(task.acks_late),
        max_retries=task.max_retries,
        outer=outer,
    )
    forget_left()
    hear_states(task)
    # An eager execution inside another one shares its session, as a function call would.
    leave_scope = None if outer is not None else listener.tracker.sessions.enter()
    leave_belonging = enter(execution)

    def leave() -> None:
        if leave_scope is not None:
            leave_scope()
        # Last: until then what struck in here lets it be done again.
        leave_belonging()

    execution.leave = leave
    return execution


def _outer(listener: Listener) -> Execution | None:
    """Return the execution inside which this code runs; one that left the tracer without a word is ended."""
    outer = current_execution()
    if outer is None or outer.task is None or is_on_stack(outer.task, outer.request):
        return outer
    try:
        listener.tracker.end_unseen(outer)
    finally:
        outer.leave()
    return None


def _begin(tracker: Tracker, execution: Execution) -> None:
    if execution.outer is not None and tracker.must_not_write():
        # An eager execution inside one with an open write: on SQLite ours would wait for it, in the same thread.
        return
    try:
        if not execution.begun:
            tracker.begin(execution)
    except Exception:
        # It runs, whether or not that could be written.
        tracker.watch(execution)
        raise
    if not execution.known:
        # Another task's token: what runs here must not reach that task.
        execution.leave()
    elif execution.elsewhere:
        # What ends here is not the execution.
        execution.known = False
    elif not execution.closed:
        tracker.watch(execution)


@done_twice
def on_task_success(sender: Any, **_: Any) -> None:
    """Note that what follows was published and the result was stored."""
    execution = _execution_of(sender)
    if execution is not None:
        execution.succeeded = True


@done_twice
def on_task_failure(
    sender: Any,
    task_id: str,
    exception: BaseException | None = None,
    traceback: Any = None,
    einfo: Any = None,
    **_: Any,
) -> None:
    """Keep the cause for `task_postrun`; a failure that is told outside of it ends the execution at once."""
    failure = failure_of(exception, traceback, einfo)
    execution = current_execution()
    if execution is not None and execution.key.celery_id == task_id:
        execution.failure = failure
        if execution.request is not sender.request:
            # The tracer was left without a `task_postrun` that reached us.
            _end_bare_of(sender, execution)
        return
    listener = find(sender.app)
    if listener is None or sender.name.startswith(OWN_TASK_PREFIX):
        return
    if isinstance(exception, TimeLimitExceeded) and runs_again_after_timeout(sender):
        return
    ref, key = _reported(sender.request, task_id)
    state = ExecutionState.REJECTED if isinstance(exception, Reject) else ExecutionState.FAILURE
    listener.tracker.close_elsewhere(ref, key, task_id, sender.name, state, failure)


def _end_bare_of(task: Any, execution: Execution) -> None:
    if not is_on_stack(task, execution.request):
        execution.leaves = True
        end_bare()


def _reported(request: Any, task_id: str) -> tuple[TaskRef | None, ExecutionKey | None]:
    """Return task and key of an execution whose failure is told outside of the tracer; the signal may say neither."""
    if getattr(request, "id", None) == task_id:
        return ref_of_request(request), ExecutionKey.of_request(request)
    found = reported()
    if found is not None and found[1].celery_id == task_id:
        return found
    return None, None


@done_twice
def on_task_postrun(
    sender: Any,
    task: Any,
    state: str | None = None,
    retval: Any = None,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    **_: Any,
) -> None:
    """End the execution, if all that was told of it says that it is over.

    Not at `task_success`: a task's `after_return` runs later and may publish. From here on nobody vouches for it any
    more, unless its end waits to be written.
    """
    listener = find(task.app)
    execution = _execution_of(task) or _enter_late(listener, task, args or (), kwargs or {})
    if execution is None:
        return
    execution.leaves = True
    if listener is not None and execution.known:
        if not execution.ended:
            if state == SUCCESS and not execution.entered and is_plain(task):
                # It was selected after its tracer was made: an eager call before the app was finalised.
                execution.entered = True
                conclude(execution, retval)
            _end(listener.tracker, execution, state, retval, sys.exc_info()[1])
            execution.ended = True
        listener.tracker.release(execution)
    note_left(execution.ref, execution.key)
    execution.leave()


def _enter_late(
    listener: Listener | None, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Execution | None:
    """Find the execution of a request whose `task_prerun` did not reach us: something struck as it was sent."""
    request = task.request
    if listener is None or request.is_eager or ref_of_request(request) is None:
        return None
    left = reported()
    if left is not None and left[1] == ExecutionKey.of_request(request):
        # It was ended a moment ago.
        return None
    return _enter(listener, task, args, kwargs)


def _end(
    tracker: Tracker, execution: Execution, state: str | None, retval: Any, in_flight: BaseException | None
) -> None:
    """Record what an execution's way out of the tracer means; the arguments are those of `Exit`."""
    left = Exit(
        state=state,
        retval=retval,
        in_flight=in_flight,
        succeeded=execution.succeeded,
        failure=execution.failure,
        told=execution.told,
        acks_late=execution.acks_late,
        eager=bool(execution.request.is_eager),
        in_pool_child=_in_pool_child(),
        awaited=bool(getattr(execution.request, "chord", None)),
    )
    match decide(left):
        case Close(closed, failure):
            if closed == ExecutionState.RETRY:
                _note_next_attempt(execution, retval)
            tracker.close(execution, closed, failure)
        case HandBack():
            tracker.flush(execution)
            tracker.hand_back(execution.ref, execution.key, execution.name, lost=False)
        case _:
            tracker.flush(execution)


def _note_next_attempt(execution: Execution, retry: Any) -> None:
    # Without a broker the next attempt begins only after this one has ended.
    if execution.request.is_eager and getattr(retry, "sig", None) is not None:
        following = replace(execution.key, retries=execution.key.retries + 1)
        execution.publications.append(
            Publication(following, execution.name, execution.key.celery_id, None, now(), None, sent=True)
        )


def _in_pool_child() -> bool:
    return current_process().name != "MainProcess"


def _execution_of(task: Any) -> Execution | None:
    execution = current_execution()
    return execution if execution is not None and execution.request is task.request else None


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
    listener.tracker.close_elsewhere(
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
    told = f"the worker could not read the message: {message_of(exc) if exc is not None else None}"
    failure = Failure(type=type(exc).__name__, message=told)
    _close_message(sender, message, None, failure)


def _close_message(sender: Any, message: Any, name: str | None, failure: Failure) -> None:
    headers = message.headers or {}
    key = ExecutionKey.of_headers(headers)
    listener = find(sender.app)
    if key is not None and listener is not None:
        listener.tracker.close_elsewhere(
            TaskRef.decode(headers.get(HEADER)),
            key,
            key.celery_id,
            name or headers.get("task"),
            ExecutionState.REJECTED,
            failure,
        )


def _signal_name(signum: Any) -> str:
    return getattr(signum, "name", None) or str(signum)
