"""Celery's signals, translated into facts for the tracker. The one module that listens.

What Celery sends, from which process and in which order, differs between ways to end; the rules kept here held in
all measured scenarios of celery 5.7: only `task_postrun` with a closing state ends an execution in the process that
runs it, a failure reported by the worker's parent ends one too, and everything may come twice, late, or never.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Protocol

from billiard.exceptions import TimeLimitExceeded
from billiard.process import current_process
from celery import Celery, signals
from celery.exceptions import Reject, SoftTimeLimitExceeded
from sqlalchemy.exc import DBAPIError

from . import current, messages
from .belonging import (
    HEADER,
    OWN_TASK_PREFIX,
    Detached,
    Execution,
    Publisher,
    Submission,
    current_execution,
    current_publisher,
    enter,
    forget_left,
    nesting_of,
    note_left,
    ref_of_request,
    reported,
)
from .broker import queue_of
from .clock import as_utc, now
from .errors import DatabaseUnavailableError, SchemaError, SettingsError
from .exits import Close, Exit, HandBack, decide, failure_of, runs_again_after_timeout
from .facts import ExecutionKey, Publication, TaskRef
from .failures import message_of
from .plugin import find_plugin_task, hear_states, is_plugin_task, resent
from .stacks import is_on_stack
from .states import ExecutionState
from .store import Failure
from .tracker import Tracker

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


def _find(app: Celery | None) -> Listener | None:
    """Return the listener of an app, or of the process for None; None where there is none."""
    found: Listener | None = current.find(app)
    return found


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


def _never_fails(handler: Callable[..., None]) -> Callable[..., None]:
    """Keep a fault of ours away from the task; Celery would only log that a handler raised."""

    @functools.wraps(handler)
    def guarded(sender: Any = None, **arguments: Any) -> None:
        try:
            handler(sender, **arguments)
        except Exception as exc:
            if not _is_noted(exc):
                logger.exception("%s of %s could not be recorded", handler.__name__, getattr(sender, "name", sender))

    return guarded


def _done_twice(handler: Callable[..., None]) -> Callable[..., None]:
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
        _end_bare()


def _is_noted(exc: Exception) -> bool:
    """Tell whether the database is away, or lacks the tables, of which one line is said and not one per signal."""
    listener = _find(None) if isinstance(exc, (DBAPIError, DatabaseUnavailableError, SchemaError)) else None
    return listener is not None and listener.tracker.backlog.note(exc)


def _end_bare() -> None:
    """Let it at least be told that an execution ended, if it has; a running one is left to its `task_postrun`."""
    execution = current_execution()
    if execution is not None and execution.leaves:
        listener = _find(execution.task.app)
        if listener is not None and execution.known:
            listener.tracker.end_unseen(execution)
        execution.leave()


@_never_fails
def on_before_task_publish(
    sender: str,
    headers: dict[str, Any],
    body: Any,
    exchange: Any = None,
    routing_key: str | None = None,
    properties: Mapping[str, Any] | None = None,
    declare: Sequence[Any] | None = None,
    **_: Any,
) -> None:
    """Put the task's header into a message, and note the message for registration."""
    publisher = current_publisher()
    if isinstance(publisher, Execution) and headers.get("id") and not sender.startswith(OWN_TASK_PREFIX):
        nesting = nesting_of(headers, body, publisher)
        while publisher.has_sent(ExecutionKey.of_headers({**headers, "replaced_task_nesting": nesting})):
            # The same run sends it again, so it is new work, unlike what a run sends that was delivered again.
            nesting += 1
        headers["replaced_task_nesting"] = nesting
    key = ExecutionKey.of_headers(headers)
    if key is None or sender.startswith(OWN_TASK_PREFIX):
        return
    publication = Publication(
        key=key,
        name=sender,
        parent_id=headers.get("parent_id"),
        queue=queue_of(exchange, routing_key, declare),
        published_at=now(),
        eta=_moment(headers.get("eta")),
        expires=_moment(headers.get("expires")),
    )
    listener = _find(None) if sender in resent else None
    if listener is not None:
        publication.message = messages.keep(
            listener.app,
            sender,
            body=body,
            headers=headers,
            properties=properties or {},
            exchange=exchange,
            routing_key=routing_key,
        )
    ref = TaskRef.decode(headers.get(HEADER))
    if isinstance(publisher, Publisher) and (ref is None or ref == publisher.ref):
        headers[HEADER] = publisher.ref.encode()
        _note(publisher, publication)
    elif ref is not None:
        _register_now(ref, publication)
    elif not isinstance(publisher, Detached):
        _adopt_at_publish(sender, headers, body, publication)


def _note(publisher: Publisher, publication: Publication) -> None:
    if isinstance(publisher, Execution) and (publisher.closed or publisher.pid != os.getpid()):
        # A thread that outlived its execution, or a process that it forked: nothing else registers for these.
        _register_now(publisher.ref, publication)
        return
    if isinstance(publisher, Submission):
        publisher.published += 1
        if publication.key == publisher.registered:
            listener = _find(None) if publication.message is not None else None
            if listener is not None:
                # Before it goes out: afterwards the broker may lose it at any moment.
                listener.tracker.keep(publisher.ref, publication)
            return
    publisher.publications.append(publication)


def _register_now(ref: TaskRef, publication: Publication) -> None:
    listener = _find(None)
    if listener is not None and not listener.tracker.sessions.open_write():
        listener.tracker.register(ref, [publication])


def _adopt_at_publish(name: str, headers: dict[str, Any], body: Any, publication: Publication) -> None:
    listener = _find(None)
    if listener is None or find_plugin_task(listener.app, name) is None:
        return
    kwargs = body[1] if isinstance(body, (tuple, list)) and len(body) > 1 else {}
    ref = listener.adopt(name, kwargs if isinstance(kwargs, Mapping) else {}, publication, redelivered=False)
    if ref is not None:
        headers[HEADER] = ref.encode()
        headers["replaced_task_nesting"] = publication.key.nesting


@_never_fails
def on_after_task_publish(sender: str, headers: Mapping[str, Any], **_: Any) -> None:
    """Note that a message was handed to the broker; one that failed to go out must not be waited for."""
    publisher = current_publisher()
    key = ExecutionKey.of_headers(headers)
    if isinstance(publisher, Publisher) and key is not None:
        publisher.note_sent(key)


@_done_twice
def on_task_prerun(sender: Any, task: Any, kwargs: Mapping[str, Any] | None = None, **_: Any) -> None:
    """Make the execution the current one, and record that it runs."""
    listener = _find(task.app)
    if listener is None or task.name.startswith(OWN_TASK_PREFIX):
        return
    execution = _execution_of(task) or _enter(listener, task, kwargs or {})
    if execution is not None:
        _begin(listener.tracker, execution)


def _enter(listener: Listener, task: Any, kwargs: Mapping[str, Any]) -> Execution | None:
    """Make the execution of a request the current one; None if it belongs to no task."""
    request = task.request
    key = ExecutionKey.of_request(request)
    if key is None:
        return None
    outer = _outer(listener)
    ref = ref_of_request(request)
    if ref is None and request.is_eager:
        publisher = current_publisher()
        ref = publisher.ref if isinstance(publisher, Publisher) else None
    if ref is None and is_plugin_task(task):
        publication = Publication(key, task.name, request.parent_id, None, now(), None, sent=True)
        redelivered = bool((request.delivery_info or {}).get("redelivered"))
        ref = listener.adopt(task.name, kwargs, publication, redelivered=redelivered)
        key = publication.key
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


@_done_twice
def on_task_success(sender: Any, **_: Any) -> None:
    """Note that what follows was published and the result was stored."""
    execution = _execution_of(sender)
    if execution is not None:
        execution.succeeded = True


@_done_twice
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
    listener = _find(sender.app)
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
        _end_bare()


def _reported(request: Any, task_id: str) -> tuple[TaskRef | None, ExecutionKey | None]:
    """Return task and key of an execution whose failure is told outside of the tracer; the signal may say neither."""
    if getattr(request, "id", None) == task_id:
        return ref_of_request(request), ExecutionKey.of_request(request)
    found = reported()
    if found is not None and found[1].celery_id == task_id:
        return found
    return None, None


@_done_twice
def on_task_postrun(
    sender: Any,
    task: Any,
    state: str | None = None,
    retval: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    **_: Any,
) -> None:
    """End the execution, if all that was told of it says that it is over.

    Not at `task_success`: a task's `after_return` runs later and may publish. From here on nobody vouches for it any
    more, unless its end waits to be written.
    """
    listener = _find(task.app)
    execution = _execution_of(task) or _enter_late(listener, task, kwargs or {})
    if execution is None:
        return
    execution.leaves = True
    if listener is not None and execution.known:
        if not execution.ended:
            _end(listener.tracker, execution, state, retval, sys.exc_info()[1])
            execution.ended = True
        listener.tracker.release(execution)
    note_left(execution.ref, execution.key)
    execution.leave()


def _enter_late(listener: Listener | None, task: Any, kwargs: Mapping[str, Any]) -> Execution | None:
    """Find the execution of a request whose `task_prerun` did not reach us: something struck as it was sent."""
    request = task.request
    if listener is None or request.is_eager or ref_of_request(request) is None:
        return None
    left = reported()
    if left is not None and left[1] == ExecutionKey.of_request(request):
        # It was ended a moment ago.
        return None
    return _enter(listener, task, kwargs)


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


@_never_fails
def on_task_revoked(
    sender: Any, request: Any, terminated: bool = False, signum: Any = None, expired: bool = False, **_: Any
) -> None:
    """End an execution that was revoked, or that expired in the queue."""
    listener = _find(sender.app)
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


@_never_fails
def on_task_unknown(sender: Any, message: Any, exc: BaseException, name: str, id: str, **_: Any) -> None:
    """End an execution whose Celery task no worker that got it knows."""
    failure = Failure(type="NotRegistered", message=f"the worker knows no task {name!r}; include its module there")
    _close_message(sender, message, name, failure)


@_never_fails
def on_task_rejected(sender: Any, message: Any, exc: BaseException | None = None, **_: Any) -> None:
    """End an execution whose message the worker could not read."""
    told = f"the worker could not read the message: {message_of(exc) if exc is not None else None}"
    failure = Failure(type=type(exc).__name__, message=told)
    _close_message(sender, message, None, failure)


def _close_message(sender: Any, message: Any, name: str | None, failure: Failure) -> None:
    headers = message.headers or {}
    key = ExecutionKey.of_headers(headers)
    listener = _find(sender.app)
    if key is not None and listener is not None:
        listener.tracker.close_elsewhere(
            TaskRef.decode(headers.get(HEADER)),
            key,
            key.celery_id,
            name or headers.get("task"),
            ExecutionState.REJECTED,
            failure,
        )


@_never_fails
def on_worker_init(sender: Any, **_: Any) -> None:
    """Check settings and schema when a worker starts; a worker with wrong settings does not."""
    listener = _find(sender.app)
    if listener is not None:
        try:
            listener.on_worker_start()
        except SettingsError as exc:
            raise SystemExit(f"the worker does not start: {exc}") from exc


@_never_fails
def on_worker_process_init(sender: Any = None, **_: Any) -> None:
    """Give a pool child connections of its own."""
    listener = _find(None)
    if listener is not None:
        listener.on_pool_process_start()


@_never_fails
def on_worker_ready(sender: Any, **_: Any) -> None:
    """Let a worker whose pool has no processes of its own take part in upkeep.

    Never the parent of a prefork pool: a child forked while a thread there talks to the database is broken.
    """
    listener = _find(sender.app)
    if listener is None:
        return
    if type(sender.pool).__module__.endswith("prefork"):
        listener.on_parent_ready(sender.timer)
    else:
        listener.on_ready()


@_never_fails
def on_leaving(sender: Any = None, **_: Any) -> None:
    """Let a process that ends say what it still has to say."""
    listener = _find(None)
    if listener is not None:
        listener.on_leaving()


def _moment(value: object) -> datetime | None:
    if not isinstance(value, str):
        return value if isinstance(value, datetime) else None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return as_utc(moment)


def _signal_name(signum: Any) -> str:
    return getattr(signum, "name", None) or str(signum)
