"""The facts that an execution ended: what is written, and what if the database refuses that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from sqlalchemy import Connection

from ...context.execution import Execution
from ...facts import ExecutionKey, Failure, TaskRef
from ...settings.values import Settings
from ...states import ExecutionState
from ...store.closing.close import Closing, close, close_script
from ...store.executions import lookup
from ...store.task_end.outcome import Outcome
from ..backlog import Fact
from .followers import followers
from .plainer import plainer_closings

#: In the place of the task of a fact that does not say which.
_UNKNOWN_TASK: Final = -1


def closing_of(execution: Execution, state: ExecutionState, failure: Failure | None, settings: Settings) -> Closing:
    """Take from an execution all that is to be written of its end."""
    reports = execution.take()
    return Closing(
        key=execution.key,
        name=execution.name,
        state=state,
        failure=failure,
        publications=reports.publications,
        lines=reports.lines,
        progress=reports.progress,
        counts_members=settings.canvas_progress,
        to_come=followers(execution.request),
        kept=bool(getattr(execution.task, "resend", False)),
        deadline_seconds=settings.publish_deadline_seconds,
        begun=execution.registered,
    )


def fact_of_close(execution: Execution, closing: Closing, written: Callable[[Outcome], None]) -> Fact:
    """Make the fact that an execution, and what ran eagerly inside it, ended in this process.

    If the database refuses its values, plain ASCII is written in their place, then hardly more than the end. `instead`
    says only that it ended.
    """
    task_id = execution.ref.task_id
    bare = Fact(task_id, f"{execution.name} ended: {execution.key}", partial(_close_bare, execution), written)
    write = partial(_close_all, execution, closing) if execution.inner else close_script(execution.ref, closing)
    return Fact(
        task_id,
        closing,
        write,
        written,
        instead=bare,
        plainer=lambda: _plainer_close(execution, plainer_closings(closing), bare),
    )


def _plainer_close(execution: Execution, closings: Iterator[Closing], bare: Fact) -> Fact | None:
    """Make the next plainer fact of a close, once the one before it was refused."""
    for closing in closings:
        write = partial(_close_plainly, execution, closing)
        plainer = partial(_plainer_close, execution, closings, bare)
        return Fact(bare.task_id, closing, write, bare.written, instead=bare, plainer=plainer)
    return None


def _close_all(execution: Execution, closing: Closing, connection: Connection) -> Outcome:
    for inner in execution.inner:
        close(connection, execution.ref, inner)
    return close(connection, execution.ref, closing)


def _close_plainly(execution: Execution, closing: Closing, connection: Connection) -> Outcome:
    """End an execution, and what ran eagerly inside it, with what the database takes."""
    for inner in execution.inner:
        *_, barest = plainer_closings(inner)
        close(connection, execution.ref, barest)
    return close(connection, execution.ref, closing)


def _close_bare(execution: Execution, connection: Connection) -> Outcome:
    """End an execution of which nothing more is known than that it ended."""
    failure = Failure(type="FactLostError", message="how it ended could not be recorded; see the worker's log")
    closing = Closing(key=execution.key, name=execution.name, state=ExecutionState.LOST, failure=failure)
    return close(connection, execution.ref, closing)


def fact_of_close_elsewhere(
    ref: TaskRef | None,
    key: ExecutionKey | None,
    celery_id: str,
    name: str | None,
    state: ExecutionState,
    failure: Failure | None,
    written: Callable[[tuple[int, Outcome] | None], None],
) -> Fact:
    """Make the fact that an execution ended which this process does not run; see `ExecutionRecorder.close_elsewhere`.

    Args:
        ref: Its task, None to find it by the Celery id.
        key: Its key, None likewise.
        celery_id: Celery's id.
        name: Name of the Celery task.
        state: A closed state.
        failure: Why.
        written: Called with the id of the task and the outcome, None if no open execution was found.
    """

    def write(connection: Connection) -> tuple[int, Outcome] | None:
        task, execution_key, task_name = ref, key, name
        if task is None or execution_key is None:
            found = lookup.find_open(connection, celery_id, key)
            if found is None:
                return None
            task, execution_key, task_name = found
        closing = Closing(key=execution_key, name=task_name or "task", state=state, failure=failure)
        return task.task_id, close(connection, task, closing)

    text = f"{name} ended as {state.value}: {key or celery_id}, {failure!r}"
    return Fact(ref.task_id if ref is not None else _UNKNOWN_TASK, text, write, written)
