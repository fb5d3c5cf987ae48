"""The current execution and publisher, kept in ContextVars."""

from __future__ import annotations

import functools
import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

from ..facts import ExecutionKey, TaskRef
from .execution import Detached, Execution, Publisher, Submission

P = ParamSpec("P")


R = TypeVar("R")


_execution: ContextVar[Execution | None] = ContextVar("qhana_taskstate_execution", default=None)


_publisher: ContextVar[Submission | Detached | None] = ContextVar("qhana_taskstate_publisher", default=None)


#: The executions of this process between `enter` and the end.
_running: weakref.WeakSet[Execution] = weakref.WeakSet()


#: Whether this process was forked while an execution ran in its parent.
_forked_inside = False


def _forget_parent() -> None:
    global _running, _forked_inside
    current = _execution.get()
    # Asked for in every report, where a call of the system for the process's number would cost more than all the rest.
    for execution in [*_running, *([current] if current is not None else [])]:
        _forked_inside = execution.inherited = True
    _running = weakref.WeakSet()


os.register_at_fork(after_in_child=_forget_parent)


def forked_inside_execution() -> bool:
    """Tell whether a plugin has forked this process, or one before it."""
    return _forked_inside


def running_executions() -> list[Execution]:
    """Return the executions that run in this process, in whatever thread."""
    return [execution for execution in list(_running) if not execution.closed]


_signalled: ContextVar[tuple[TaskRef | None, ExecutionKey] | None] = ContextVar(
    "qhana_taskstate_signalled", default=None
)


@contextmanager
def signalling(ref: TaskRef | None, key: ExecutionKey) -> Iterator[None]:
    """Let what Celery signals in the block, in the worker's parent, be about this execution."""
    before = _signalled.get()
    _signalled.set((ref, key))
    try:
        yield
    finally:
        _signalled.set(before)


def note_left(ref: TaskRef, key: ExecutionKey) -> None:
    """Note which execution left the tracer last in this thread: Celery may still signal a failure of it."""
    _signalled.set((ref, key))


def forget_left() -> None:
    """Undo `note_left`: another execution begins."""
    _signalled.set(None)


def signalled() -> tuple[TaskRef | None, ExecutionKey] | None:
    """Return task (None if its message does not say) and key of an execution signalled outside of the tracer."""
    return _signalled.get()


#: `current_execution` for loops that cannot afford it: the caller asks whether what it returns is `inherited`.
execution_here: Callable[[], Execution | None] = _execution.get


def current_execution() -> Execution | None:
    """Return the tracked execution in which this code runs, if any. None in a process that a plugin has forked."""
    execution = _execution.get()
    return None if execution is None or execution.inherited else execution


def execution_of(request: object) -> Execution | None:
    """Return the tracked execution in which this code runs if it is the one of a request, by identity."""
    execution = _execution.get()
    if execution is None or execution.request is not request or execution.inherited:
        return None
    return execution


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
