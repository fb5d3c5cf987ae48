"""Adds and clears the steps of a saved task at once, under the lock of its row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from ..context.current import inside_execution_of
from ..database.sessions.open_writes import note_write
from ..database.tables.runner import task_table
from ..errors import TaskFinishedError
from ..events import TaskEvent
from ..states import UNKNOWN
from ..store.task.locks import lock_task
from ..store.task.steps import clear, has_open, park
from .changes import cleared_steps, raised_events
from .step import Step

if TYPE_CHECKING:
    from .task import ProcessingTask


def add_step(task: ProcessingTask, session: Session, step: Step) -> None:
    """Write a new step in the transaction of the session that the task is in.

    Raises:
        AssertionError: If the newest step is not cleared.
        TaskFinishedError: If the task has ended.
    """
    undo = None if session.in_transaction() or session.dirty else session.rollback
    try:
        session.flush()
        connection = session.connection()
        note_write(session)
        locked = lock_task(connection, step.id, task_table.c.finished_at, task_table.c.task_status)
        if locked is not None and locked.finished_at is not None:
            raise TaskFinishedError(step.id, locked.task_status or UNKNOWN)
        newest = _reload_steps(task, session)
        assert_cleared(newest)
    except BaseException:
        # Nobody but this call opened the transaction: the lock must not outlive it.
        if undo is not None:
            undo()
        raise
    step.number = 0 if newest is None else newest.number + 1
    task.steps.append(step)
    task.multi_step = True
    task.current_step = step.number
    session.flush()
    park(connection, step.id, parked=True)


def _reload_steps(task: ProcessingTask, session: Session) -> Step | None:
    """Read the steps as they are now, and return the newest. Needs the lock of the task's row."""
    with session.no_autoflush:
        found = session.scalars(
            select(Step)
            .where(Step.id == task.id)
            .order_by(Step.number)
            .with_for_update()
            .execution_options(populate_existing=True)
        ).all()
    set_committed_value(task, "steps", found)
    return found[-1] if found else None


def clear_step(task: ProcessingTask, session: Session) -> bool:
    """Clear the open step of a task in the transaction of its session; returns whether this call cleared it."""
    session.flush()
    task_id = task.id
    cleared = False
    if has_open(session, task_id):
        connection = session.connection()
        note_write(session)
        lock_task(connection, task_id)
        cleared = clear(connection, task_id, goes_on=inside_execution_of(task_id))
        if cleared:
            raised_events.note(session, task_id, TaskEvent.STEPS)
    # Also if somebody else cleared it since it was loaded.
    cleared_steps.show_cleared(session, task_id, Step)
    return cleared


def assert_cleared(newest: Step | None) -> None:
    """Raise an `AssertionError` if the newest step of a task waits for input."""
    if newest is not None and not newest.cleared:
        raise AssertionError(
            f"step {newest.step_id!r} still waits for input; call clear_previous_step() before add_next_step()"
        )
