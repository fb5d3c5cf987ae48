"""Which task the running code and the messages it publishes belong to: a message header and ContextVars."""

from __future__ import annotations

import functools
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, ParamSpec, TypeVar

from .celery_ids import is_chosen
from .facts import ExecutionKey, Progress, Publication, TaskRef

P = ParamSpec("P")
R = TypeVar("R")

#: The one message header of this package. Set once, never grown, carried on by Celery through retries.
HEADER: Final = "qhana_taskstate"

#: Celery tasks whose names start so are our own and never belong to a task.
OWN_TASK_PREFIX: Final = "qhana_taskstate."


@dataclass(eq=False)
class Publisher:
    """Something whose published messages belong to a task.

    Attributes:
        ref: The task.
        publications: Messages seen and not yet registered in the database, oldest first.
    """

    ref: TaskRef
    publications: list[Publication] = field(default_factory=list)
    #: Keys of the messages that it has sent, as far as somebody chose their ids; the others never come twice.
    chosen: set[ExecutionKey] = field(default_factory=set)

    def take_sent(self) -> list[Publication]:
        """Remove and return the publications that the broker has; the others stay until they are sent."""
        publications = self.publications
        sent = [publication for publication in publications if publication.sent]
        for publication in sent:
            publications.remove(publication)
        return sent

    def has_sent(self, key: ExecutionKey | None) -> bool:
        """Tell whether a message with this key, whose id somebody chose, was sent by this very run."""
        return key in self.chosen

    def note_sent(self, key: ExecutionKey) -> None:
        """Mark a publication as handed to the broker."""
        if is_chosen(key.celery_id):
            self.chosen.add(key)
        for publication in reversed(self.publications):
            if publication.key == key:
                publication.sent = True
                return


@dataclass(eq=False)
class Submission(Publisher):
    """A canvas being submitted by `start`.

    Attributes:
        registered: Key of the one message that was registered before it was published.
    """

    registered: ExecutionKey | None = None
    published: int = 0


@dataclass(eq=False)
class Execution(Publisher):
    """One execution that runs in this thread; lives from `task_prerun` to `task_postrun`.

    Attributes:
        key: Its key.
        name: Name of the Celery task.
        task: Celery's task object.
        request: Celery's request.
        function: The plugin function whose body it runs, None for a task that is no plugin task.
        acks_late: Whether the broker keeps its message until it ended.
        max_retries: Celery's limit of retries, None for no limit.
        known: False if the database knows no task with this token.
        closed: Its end is recorded.
        postponed: Its end waits in memory for the database; until then its lease is renewed.
        task_ended: The task had already ended when it began.
        elsewhere: It runs already in a process that lives: its message was delivered again.
        entered: The body was entered; a further call of the function is a plain call.
        begun: That it runs is recorded, or waits for the database.
        failure: Why it failed, as Celery reported it (a `store.Failure`).
        told: The failed end that its body stored itself (a `store.Failure`).
        succeeded: Celery said so: its result is stored and what follows is published.
        limit: A soft time limit that struck in our part, before the body.
        leaves: `task_postrun` was sent.
        ended: What its way out of the tracer means is recorded, or waits for the database.
        outer: The execution inside which it runs eagerly.
        leave: Ends its session scope and gives the ContextVars their former values.
    """

    key: ExecutionKey = field(kw_only=True)
    name: str = field(kw_only=True)
    task: Any = field(kw_only=True, default=None)
    request: Any = field(kw_only=True, default=None)
    function: Callable[..., Any] | None = field(kw_only=True, default=None)
    acks_late: bool = field(kw_only=True, default=False)
    max_retries: int | None = field(kw_only=True, default=None)
    known: bool = field(kw_only=True, default=True)
    task_ended: bool = field(kw_only=True, default=False)
    elsewhere: bool = field(kw_only=True, default=False)
    entered: bool = field(kw_only=True, default=False)
    closed: bool = field(kw_only=True, default=False)
    postponed: bool = field(kw_only=True, default=False)
    begun: bool = field(kw_only=True, default=False)
    failure: Any = field(kw_only=True, default=None)
    told: Any = field(kw_only=True, default=None)
    limit: BaseException | None = field(kw_only=True, default=None)
    leaves: bool = field(kw_only=True, default=False)
    ended: bool = field(kw_only=True, default=False)
    succeeded: bool = field(kw_only=True, default=False)
    leave: Callable[[], None] = field(kw_only=True, default=lambda: None)
    outer: Execution | None = field(kw_only=True, default=None)
    #: Ends of eager executions inside this one that could not be written when they came.
    inner: list[Any] = field(kw_only=True, default_factory=list)
    began: float = field(kw_only=True, default_factory=time.monotonic)
    #: The process that runs it. A child that its plugin forks has a copy of it, which counts for nothing.
    pid: int = field(kw_only=True, default_factory=os.getpid)
    #: Log entries not written yet; a deque, since the plugin appends while another thread takes from it.
    lines: deque[str] = field(kw_only=True, default_factory=deque)
    progress: Progress | None = field(kw_only=True, default=None)
    progress_dirty: bool = field(kw_only=True, default=False)
    #: Held while its reports are written, so that the last value is never overtaken by an older one.
    writing: threading.Lock = field(kw_only=True, default_factory=threading.Lock)

    @property
    def dirty(self) -> bool:
        """Whether reports or publications wait to be written."""
        return bool(self.lines or self.progress_dirty or self.publications)

    def take_lines(self) -> list[str]:
        """Remove and return the log entries that wait to be written."""
        taken = []
        while self.lines:
            taken.append(self.lines.popleft())
        return taken

    def take_progress(self) -> Progress | None:
        """Return the progress if it waits to be written, and note that it was taken."""
        if not self.progress_dirty:
            return None
        # In this order: what the plugin reports in between is written once more rather than never.
        self.progress_dirty = False
        return self.progress


def nesting_of(headers: Mapping[str, Any], body: Any, execution: Execution) -> int:
    """Return the `replaced_task_nesting` with which a message gets a key of its own.

    The last message of a replacement has the id of the task that was replaced. Celery tells the two apart by the
    nesting, but forgets it for what follows the body of a chord (celery 5.5 to 5.7). So it is passed on here: what an
    execution publishes is nested as deep as the execution, and one deeper if it is, or leads to, a message with the
    execution's own id. Celery only ever adds one to the number.

    Args:
        headers: Of the message, protocol 2.
        body: Of the message: arguments, keywords, and what follows.
        execution: Who publishes it.
    """
    key = execution.key
    nesting = max(int(headers.get("replaced_task_nesting") or 0), key.nesting)
    if nesting > key.nesting or int(headers.get("retries") or 0) > key.retries:
        return nesting
    if headers.get("id") == key.celery_id or _leads_to(_what_follows(headers, body), key.celery_id):
        return nesting + 1
    return nesting


def _what_follows(headers: Mapping[str, Any], body: Any) -> list[Any]:
    """Return the signatures that a message carries with it."""
    if not isinstance(body, (tuple, list)) or len(body) != 3 or not isinstance(body[2], Mapping):
        return []
    args, _, embedded = body
    found = [embedded.get("chain"), embedded.get("callbacks"), embedded.get("chord")]
    if headers.get("task") == "celery.chord_unlock":
        # Waits for the header of a chord, and then publishes the body that it has as an argument.
        found.append(args)
    return found


def _leads_to(signatures: list[Any], celery_id: str) -> bool:
    waiting = list(signatures)
    while waiting:
        signature = waiting.pop()
        if isinstance(signature, (list, tuple)):
            waiting += signature
        elif isinstance(signature, Mapping) and isinstance(options := signature.get("options"), Mapping):
            if options.get("task_id") == celery_id:
                return True
            waiting += [options.get("chord"), options.get("link")]
            if signature.get("subtask_type"):
                waiting += [(signature.get("kwargs") or {}).get(part) for part in ("tasks", "header", "body")]
    return False


class Detached:
    """Marks a stretch of code whose messages belong to nobody."""


_execution: ContextVar[Execution | None] = ContextVar("qhana_taskstate_execution", default=None)
_publisher: ContextVar[Submission | Detached | None] = ContextVar("qhana_taskstate_publisher", default=None)


#: The executions of this process between `enter` and the end.
_running: weakref.WeakSet[Execution] = weakref.WeakSet()

#: Whether this process was forked while an execution ran in its parent.
_forked_inside = False


def _forget_parent() -> None:
    global _running, _forked_inside
    _forked_inside = _forked_inside or _execution.get() is not None or len(_running) > 0
    _running = weakref.WeakSet()


os.register_at_fork(after_in_child=_forget_parent)


def forked_inside_execution() -> bool:
    """Tell whether a plugin has forked this process, or one before it."""
    return _forked_inside


def running_executions() -> list[Execution]:
    """Return the executions that run in this process, in whatever thread."""
    return [execution for execution in list(_running) if not execution.closed]


_reported: ContextVar[tuple[TaskRef | None, ExecutionKey] | None] = ContextVar("qhana_taskstate_reported", default=None)


@contextmanager
def reporting(ref: TaskRef | None, key: ExecutionKey) -> Iterator[None]:
    """Let what Celery signals in the block, in the worker's parent, be about this execution."""
    before = _reported.get()
    _reported.set((ref, key))
    try:
        yield
    finally:
        _reported.set(before)


def note_left(ref: TaskRef, key: ExecutionKey) -> None:
    """Note which execution left the tracer last in this thread: Celery may still signal a failure of it."""
    _reported.set((ref, key))


def forget_left() -> None:
    """Undo `note_left`: another execution begins."""
    _reported.set(None)


def reported() -> tuple[TaskRef | None, ExecutionKey] | None:
    """Return task (None if its message does not say) and key of the execution that is told of outside of the tracer."""
    return _reported.get()


def current_execution() -> Execution | None:
    """Return the tracked execution in which this code runs, if any. None in a process that a plugin has forked."""
    execution = _execution.get()
    return execution if execution is None or execution.pid == os.getpid() else None


def current_publisher() -> Publisher | Detached | None:
    """Return what messages published now belong to: a submission, else the execution, else nothing."""
    return _publisher.get() or _execution.get()


def enter(execution: Execution) -> Callable[[], None]:
    """Make an execution the current one.

    Returns:
        A function that gives the ContextVars their former values, to be called in the same thread. Values are
        put back rather than reset with tokens, since Celery may run the two ends in different contexts.
    """
    outer, publisher = _execution.get(), _publisher.get()

    def leave() -> None:
        _running.discard(execution)
        _execution.set(outer)
        _publisher.set(publisher)

    # First: a time limit that strikes in between must not leave it the current one for ever.
    execution.leave = leave
    _execution.set(execution)
    _publisher.set(None)
    _running.add(execution)
    return leave


@contextmanager
def submitting(submission: Submission) -> Iterator[Submission]:
    """Let the messages published in the block belong to a submission."""
    outer = _publisher.get()
    _publisher.set(submission)
    try:
        yield submission
    finally:
        _publisher.set(outer)


@contextmanager
def detached() -> Iterator[None]:
    """Let the messages published in the block belong to nobody, though it runs in a tracked execution."""
    outer = _publisher.get()
    _publisher.set(Detached())
    try:
        yield
    finally:
        _publisher.set(outer)


def bound(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function that will run in a raw thread belong to the execution of the caller.

    A thread of the standard library starts with an empty context (Python 3.11), so that neither its messages nor
    its reports would find their task.

    Args:
        function: What the thread is to run; may be called in several threads at once.

    Returns:
        A function with the same signature. It has a session of its own, since a session serves one thread.
    """
    execution, publisher = _execution.get(), _publisher.get()

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        outer, outer_publisher = _execution.get(), _publisher.get()
        _execution.set(execution)
        _publisher.set(publisher)
        try:
            return function(*args, **kwargs)
        finally:
            _execution.set(outer)
            _publisher.set(outer_publisher)

    return call


def inside_execution_of(task_id: int) -> bool:
    """Tell whether this code runs in an execution of the given task."""
    execution = current_execution()
    return execution is not None and execution.ref.task_id == task_id


def ref_of_request(request: Any) -> TaskRef | None:
    """Find the task of a Celery request.

    The header stands in `request.headers` of `task.request`; without a broker (eager) only there, in the worker's
    own requests in `request_dict` (celery 5.5 to 5.7).
    """
    headers = getattr(request, "headers", None)
    found = TaskRef.decode(headers.get(HEADER)) if isinstance(headers, Mapping) else None
    if found is None:
        found = TaskRef.decode(getattr(request, HEADER, None))
    if found is None:
        request_dict = getattr(request, "request_dict", None)
        found = TaskRef.decode(request_dict.get(HEADER)) if isinstance(request_dict, Mapping) else None
    return found
