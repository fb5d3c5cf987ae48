"""Handlers of signals about executions that run here: begin, success, failure, end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from billiard.exceptions import TimeLimitExceeded
from billiard.process import current_process
from celery.exceptions import Reject
from celery.states import SUCCESS

from ...clock import now
from ...context.current import (
    current_execution,
    current_publisher,
    enter,
    execution_of,
    forget_left,
    note_left,
    signalled,
)
from ...context.execution import Execution, Publisher
from ...context.header import OWN_TASK_PREFIX, ref_of_request
from ...facts import ExecutionKey, Publication, TaskRef
from ...plugin.decorator import hear_states
from ...plugin.task_class import is_plugin_task
from ...plugin.unit_of_work import conclude
from ...recording.execution_recorder import ExecutionRecorder
from ...recording.exits.decision import Close, Exit, HandBack, decide, failure_of, retry_cause, runs_again_after_timeout
from ...recording.exits.stacks import is_on_stack
from ...states import ExecutionState
from ..adoption import adopt_received, keep_received
from ..belonging import Member, Stray, belonging, key_inside
from ..listener import done_twice, end_bare, find
from ..selection import is_plain, select_one


@done_twice
def on_task_prerun(
    sender: Any, task: Any, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **_: Any
) -> None:
    """Make the execution the current one, and record that it runs."""
    listener = find(task.app)
    if listener is None or task.name.startswith(OWN_TASK_PREFIX):
        return
    recorder = listener.recorder
    if recorder.settings.track:
        select_one(task, recorder.settings.track, listener.task_class)
    execution = execution_of(task.request) or _enter(recorder, task, args or (), kwargs or {})
    if execution is not None:
        _begin(recorder, execution)
        if getattr(task, "restartable", False) or task.request.chain:
            keep_received(execution, args or (), kwargs or {})


def _enter(recorder: ExecutionRecorder, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Execution | None:
    """Make the execution of a request the current one; None if it belongs to no task, or is part of another one."""
    request = task.request
    key = ExecutionKey.of_request(request)
    if key is None:
        return None
    outer = _outer(recorder)
    is_plugin = is_plugin_task(task)
    eager = bool(request.is_eager)
    around = _ref_around() if eager else None
    match belonging(ref_of_request(request), around, is_plugin=is_plugin):
        case Member(found):
            ref: TaskRef | None = found
        case Stray():
            ref, key = adopt_received(recorder, task, args, kwargs, key)
        case _:
            return None
    if ref is None:
        return None
    if eager and outer is not None:
        inside = key_inside(key, outer.key, always_eager=task.app.conf.task_always_eager)
        if inside is None:
            return None
        key = inside
    execution = Execution(
        ref,
        key=key,
        name=task.name,
        task=task,
        request=request,
        function=task.plugin_function if is_plugin else None,
        acks_late=bool(task.acks_late),
        max_retries=task.max_retries,
        outer=outer,
        recorder=recorder,
    )
    _make_current(execution)
    return execution


def _ref_around() -> TaskRef | None:
    publisher = current_publisher()
    return publisher.ref if isinstance(publisher, Publisher) else None


def _make_current(execution: Execution) -> None:
    """Make an execution the current one, with a session scope of its own, until `execution.leave` is called."""
    forget_left()
    hear_states(execution.task)
    # An eager execution inside another one shares its session, as a function call would.
    leave_scope: Callable[[], None] | None = (
        None if execution.outer is not None else execution.recorder.sessions.enter()
    )
    leave_belonging = enter(execution)

    def leave() -> None:
        if leave_scope is not None:
            leave_scope()
        # Last: if something strikes before, the handler is run again, and finds the execution.
        leave_belonging()

    execution.leave = leave


def _outer(recorder: ExecutionRecorder) -> Execution | None:
    """Return the execution inside which this code runs; one that left the tracer without a word is ended."""
    outer = current_execution()
    if outer is None or outer.task is None or is_on_stack(outer.task, outer.request):
        return outer
    try:
        recorder.end_unseen(outer)
    finally:
        outer.leave()
    return None


def _begin(recorder: ExecutionRecorder, execution: Execution) -> None:
    if execution.outer is not None and recorder.must_not_write():
        # An eager execution inside one with an open write: on SQLite ours would wait for it, in the same thread.
        return
    try:
        if not execution.begun:
            recorder.begin(execution)
    except Exception:
        # It runs, whether or not that could be written.
        recorder.watch(execution)
        raise
    if not execution.known:
        # Another task's token: what runs here must not reach that task.
        execution.leave()
    elif execution.elsewhere:
        # The same execution runs in another process: what ends here is not its end.
        execution.known = False
    elif not execution.closed:
        recorder.watch(execution)


@done_twice
def on_task_success(sender: Any, **_: Any) -> None:
    """Note that what follows was published and the result was stored."""
    execution = execution_of(sender.request)
    if execution is not None:
        execution.succeeded = True


@done_twice
def on_task_retry(sender: Any, reason: Any = None, **_: Any) -> None:
    """Note that the next attempt was published, and why."""
    execution = execution_of(sender.request)
    if execution is not None:
        execution.retried = retry_cause(reason)


@done_twice
def on_task_failure(
    sender: Any,
    task_id: str,
    exception: BaseException | None = None,
    traceback: Any = None,
    einfo: Any = None,
    **_: Any,
) -> None:
    """Keep the cause for `task_postrun`; a failure that is signalled outside of it ends the execution at once."""
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
    ref, key = _signalled(sender.request, task_id)
    state = ExecutionState.REJECTED if isinstance(exception, Reject) else ExecutionState.FAILURE
    listener.recorder.close_elsewhere(ref, key, task_id, sender.name, state, failure)


def _end_bare_of(task: Any, execution: Execution) -> None:
    if not is_on_stack(task, execution.request):
        execution.leaves = True
        end_bare()


def _signalled(request: Any, task_id: str) -> tuple[TaskRef | None, ExecutionKey | None]:
    """Return task and key of an execution that failed outside of the tracer; the signal may say neither."""
    if getattr(request, "id", None) == task_id:
        return ref_of_request(request), ExecutionKey.of_request(request)
    found = signalled()
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
    """End the execution, if all that is known of it says that it is over.

    Not at `task_success`: a task's `after_return` runs later and may publish. From here on nobody vouches for it any
    more, unless its end waits to be written.
    """
    execution = execution_of(task.request) or _enter_late(task, args or (), kwargs or {})
    if execution is None:
        return
    execution.leaves = True
    if execution.known:
        if not execution.ended:
            if state == SUCCESS and not execution.entered and is_plain(task):
                # It was selected after its tracer was made: an eager call before the app was finalised.
                execution.entered = True
                conclude(execution, retval)
            _end(execution.recorder, execution, state, retval, sys.exc_info()[1])
            execution.ended = True
        if not execution.closed:
            execution.recorder.release(execution)
    note_left(execution.ref, execution.key)
    execution.leave()


def _enter_late(task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Execution | None:
    """Find the execution of a request whose `task_prerun` did not reach us: something struck as it was sent."""
    request = task.request
    listener = find(task.app)
    if listener is None or request.is_eager or ref_of_request(request) is None:
        return None
    left = signalled()
    if left is not None and left[1] == ExecutionKey.of_request(request):
        # It was ended a moment ago.
        return None
    return _enter(listener.recorder, task, args, kwargs)


def _end(
    recorder: ExecutionRecorder, execution: Execution, state: str | None, retval: Any, in_flight: BaseException | None
) -> None:
    """Record what an execution's way out of the tracer means; the arguments are those of `Exit`."""
    left = Exit(
        state=state,
        retval=retval,
        in_flight=in_flight,
        succeeded=execution.succeeded,
        failure=execution.failure,
        stored=execution.stored_failure,
        acks_late=execution.acks_late,
        eager=bool(execution.request.is_eager),
        in_pool_child=current_process().name != "MainProcess",
        awaited=bool(getattr(execution.request, "chord", None)),
    )
    match decide(left):
        case Close(closed, failure):
            if closed == ExecutionState.RETRY:
                _note_next_attempt(execution, retval)
            recorder.close(execution, closed, failure)
        case HandBack():
            recorder.flush(execution)
            recorder.hand_back(execution.ref, execution.key, execution.name, lost=False)
        case _:
            recorder.flush(execution)


def _note_next_attempt(execution: Execution, retry: Any) -> None:
    # Without a broker the next attempt begins only after this one has ended.
    if execution.request.is_eager and getattr(retry, "sig", None) is not None:
        following = replace(execution.key, retries=execution.key.retries + 1)
        execution.publications.append(
            Publication(following, execution.name, execution.key.celery_id, None, now(), None, sent=True)
        )
