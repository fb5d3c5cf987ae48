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
import traceback as traceback_module
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Protocol

from billiard.exceptions import TimeLimitExceeded
from billiard.process import current_process
from celery import Celery, signals
from celery.exceptions import Reject, Retry
from celery.utils.serialization import UnpickleableExceptionWrapper

from . import messages
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
    nesting_of,
    ref_of_request,
)
from .broker import queue_of
from .clock import as_utc, now
from .errors import SettingsError
from .facts import ExecutionKey, Publication, TaskRef
from .plugin import find_plugin_task, is_plugin_task, resent
from .states import CLOSING_POSTRUN_STATES, ExecutionState
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
        self, name: str, key: ExecutionKey, kwargs: Mapping[str, Any], publication: Publication
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


_find: Callable[[Celery | None], Listener | None]


def connect(find: Callable[[Celery | None], Listener | None]) -> None:
    """Listen to Celery's signals; twice is once.

    Args:
        find: Gives the listener of an app, or of the current app for None; None where there is none.
    """
    global _find
    _find = find
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
        except Exception:
            logger.exception("%s of %s could not be recorded", handler.__name__, getattr(sender, "name", sender))

    return guarded


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
        headers["replaced_task_nesting"] = nesting_of(headers, body, publisher)
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
    ref = listener.adopt(name, publication.key, kwargs if isinstance(kwargs, Mapping) else {}, publication)
    if ref is not None:
        headers[HEADER] = ref.encode()


@_never_fails
def on_after_task_publish(sender: str, headers: Mapping[str, Any], **_: Any) -> None:
    """Note that a message was handed to the broker; one that failed to go out must not be waited for."""
    publisher = current_publisher()
    key = ExecutionKey.of_headers(headers)
    if isinstance(publisher, Publisher) and key is not None:
        publisher.note_sent(key)


@_never_fails
def on_task_prerun(sender: Any, task: Any, kwargs: Mapping[str, Any] | None = None, **_: Any) -> None:
    """Make the execution the current one, and record that it runs."""
    request = task.request
    key = ExecutionKey.of_request(request)
    listener = _find(task.app)
    if key is None or listener is None or task.name.startswith(OWN_TASK_PREFIX):
        return
    ref = ref_of_request(request)
    if ref is None and request.is_eager:
        publisher = current_publisher()
        ref = publisher.ref if isinstance(publisher, Publisher) else None
    if ref is None and is_plugin_task(task):
        publication = Publication(key, task.name, request.parent_id, None, now(), None, sent=True)
        ref = listener.adopt(task.name, key, kwargs or {}, publication)
    if ref is None:
        return
    outer = current_execution()
    if request.is_eager and outer is not None:
        if not task.app.conf.task_always_eager:
            # A call of `apply` inside a task: no message, but a part of the task that called it.
            return
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
    )
    leave_belonging = enter(execution)
    # An eager execution inside another one shares its session, as a function call would.
    leave_scope = None if outer is not None else listener.tracker.sessions.enter()
    execution.outer = outer

    def leave() -> None:
        leave_belonging()
        if leave_scope is not None:
            leave_scope()

    execution.leave = leave
    if outer is not None and listener.tracker.must_not_write():
        # An eager execution inside one with an open write: on SQLite ours would wait for it, in the same thread.
        return
    listener.tracker.begin(execution)
    if not execution.known:
        # Another task's token: what runs here must not reach that task.
        leave()
    elif execution.elsewhere:
        # What ends here is not the execution.
        execution.known = False
    elif not execution.closed:
        listener.tracker.watch(execution)


@_never_fails
def on_task_success(sender: Any, **_: Any) -> None:
    """Note that what follows was published and the result was stored."""
    execution = _execution_of(sender)
    if execution is not None:
        execution.succeeded = True


@_never_fails
def on_task_failure(
    sender: Any,
    task_id: str,
    exception: BaseException | None = None,
    traceback: Any = None,
    einfo: Any = None,
    **_: Any,
) -> None:
    """Keep the cause for `task_postrun`; a failure that the worker's parent reports ends the execution at once."""
    failure = _failure(exception, traceback, einfo)
    execution = _execution_of(sender)
    if execution is not None and execution.key.celery_id == task_id:
        execution.failure = failure
        return
    listener = _find(sender.app)
    if listener is None or sender.name.startswith(OWN_TASK_PREFIX):
        return
    if isinstance(exception, TimeLimitExceeded) and _runs_again_after_timeout(sender):
        return
    request = sender.request
    known = getattr(request, "id", None) == task_id
    state = ExecutionState.REJECTED if isinstance(exception, Reject) else ExecutionState.FAILURE
    listener.tracker.close_elsewhere(
        ref_of_request(request) if known else None,
        ExecutionKey.of_request(request) if known else None,
        task_id,
        sender.name,
        state,
        failure,
    )


def _runs_again_after_timeout(task: Any) -> bool:
    acknowledges = getattr(task, "acks_on_timeout", getattr(task, "acks_on_failure_or_timeout", True))
    return bool(task.acks_late) and not acknowledges


@_never_fails
def on_task_postrun(sender: Any, task: Any, state: str | None = None, retval: Any = None, **_: Any) -> None:
    """End the execution, if Celery's state says that it is over.

    Not at `task_success`: a task's `after_return` runs later and may publish. `None` and REJECTED are sent for
    messages that may be delivered again.
    """
    execution = _execution_of(task)
    if execution is None:
        return
    listener = _find(task.app)
    try:
        if listener is not None and execution.known:
            _end(listener.tracker, execution, state, retval, sys.exc_info()[1])
            if not execution.postponed:
                listener.tracker.unwatch(execution)
    finally:
        execution.leave()


def _end(
    tracker: Tracker, execution: Execution, state: str | None, retval: Any, in_flight: BaseException | None
) -> None:
    """Do to an execution what the state in `task_postrun` means.

    Args:
        tracker: Where facts go.
        execution: The execution.
        state: Celery's word, None if the body did not come to an end of its own.
        retval: What Celery returns or raised.
        in_flight: The exception that ends the execution while Celery tidies up, if any.
    """
    if state == ExecutionState.SUCCESS and not execution.succeeded:
        # The body returned, but publishing what comes next, or storing the result, failed (celery 5.5 to 5.7 send
        # no `task_success` and no `task_failure` then): what follows may never run.
        failure = _failure(in_flight, None, None) if in_flight is not None else None
        tracker.close(execution, ExecutionState.FAILURE, failure)
    elif state == ExecutionState.RETRY:
        # Without a broker the next attempt begins only after this one has ended.
        following = replace(execution.key, retries=execution.key.retries + 1)
        if execution.request.is_eager and getattr(retval, "sig", None) is not None:
            execution.publications.append(
                Publication(following, execution.name, execution.key.celery_id, None, now(), None, sent=True)
            )
        cause = getattr(retval, "exc", None)
        tracker.close(execution, ExecutionState.RETRY, _failure(cause or retval, None, None))
    elif state in CLOSING_POSTRUN_STATES:
        tracker.close(execution, ExecutionState(state), execution.failure)
    elif isinstance(retval, Reject):
        _close_rejected(tracker, execution, retval)
    elif execution.request.is_eager and isinstance(in_flight, Exception):
        # `task_eager_propagates` and `apply(throw=True)` raise without a word (celery 5.5 to 5.7), also a `Retry`,
        # after which nothing is tried again.
        cause = in_flight.exc if isinstance(in_flight, Retry) else None
        tracker.close(execution, ExecutionState.FAILURE, _failure(cause or in_flight, in_flight.__traceback__, None))
    elif _escapes(in_flight) and not _in_pool_child():
        # A prefork child ends with it, and the parent tells why; in threads and greenlets nobody does.
        tracker.close(execution, ExecutionState.FAILURE, _failure(in_flight, None, None))
    else:
        tracker.flush(execution)


def _escapes(exception: BaseException | None) -> bool:
    """Tell whether an exception is one that Celery lets pass (SystemExit, asyncio.CancelledError, …).

    Those with which gevent ends a greenlet are left to the worker, which knows why it does.
    """
    if exception is None or isinstance(exception, Exception):
        return False
    return not type(exception).__module__.startswith(("gevent", "greenlet"))


def _in_pool_child() -> bool:
    return current_process().name != "MainProcess"


def _close_rejected(tracker: Tracker, execution: Execution, reject: Any) -> None:
    """End a rejected execution, unless its message goes back to the broker."""
    failure = Failure(type="Reject", message=str(reject.reason))
    if not reject.requeue:
        tracker.close(execution, ExecutionState.REJECTED, failure)
    elif execution.acks_late:
        tracker.flush(execution)
        tracker.hand_back(execution.ref, execution.key, execution.name, lost=False)
    else:
        # The broker has forgotten the message: it was acknowledged before the task began.
        lost = Failure(type="Reject", message=f"{failure.message}; cannot be requeued without acks_late")
        tracker.close(execution, ExecutionState.LOST, lost)


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
    failure = Failure(type=type(exc).__name__, message=f"the worker could not read the message: {exc}")
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


def _failure(exception: BaseException | None, traceback: Any, einfo: Any) -> Failure:
    text = getattr(einfo, "traceback", None)
    if text is None and traceback is not None:
        text = traceback if isinstance(traceback, str) else "".join(traceback_module.format_tb(traceback))
    cause = exception if exception is not None else getattr(einfo, "exception", None)
    # billiard wraps the exception together with its remote traceback.
    cause = getattr(cause, "exc", cause) if type(cause).__name__ == "ExceptionWithTraceback" else cause
    traceback_text = text and str(text)
    if isinstance(cause, UnpickleableExceptionWrapper):
        told = ", ".join(str(argument) for argument in cause.exc_args or ())
        return Failure(type=str(cause.exc_cls_name), message=told, traceback=traceback_text)
    return Failure(type=type(cause).__name__, message=_message(cause), traceback=traceback_text)


def _message(exception: BaseException | None) -> str:
    try:
        return str(exception)
    except Exception as exc:
        return f"(its text cannot be had: {type(exc).__name__})"


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
