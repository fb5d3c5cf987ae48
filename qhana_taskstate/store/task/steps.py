"""Steps of a task: finds the open one, clears it, notes that the task rests there. Nothing here commits."""

from __future__ import annotations

from sqlalchemy import BindParameter, ColumnElement, Connection, and_, or_, select, update
from sqlalchemy.orm import Session

from ...database.tables.jobs import job_table
from ...database.tables.runner import step_table


def is_uncleared() -> ColumnElement[bool]:
    """Return the condition for steps that wait for input; NULL counts as not cleared."""
    return or_(step_table.c.cleared.is_(False), step_table.c.cleared.is_(None))


def is_open_step(task_id: int | BindParameter[int]) -> ColumnElement[bool]:
    """Return the condition for the steps of a task that wait for input."""
    return and_(step_table.c.id == task_id, is_uncleared())


def has_open(session: Session, task_id: int) -> bool:
    """Tell whether a task waits at a step, as the database has it now."""
    return session.execute(select(step_table.c.number).where(is_open_step(task_id)).limit(1)).first() is not None


def clear(connection: Connection, task_id: int, number: int | None = None, *, goes_on: bool = False) -> bool:
    """Clear a step unless it is cleared. Needs the lock of the task's row, so that nobody waits for the step's.

    Args:
        connection: In whose transaction to write.
        task_id: Id of the task.
        number: Number of the step; None means whichever is open.
        goes_on: The execution that clears it goes on with the work, so the task does not rest until more is
            started from outside.

    Returns:
        Whether this call cleared it.
    """
    condition = is_open_step(task_id) if number is None else and_(is_open_step(task_id), step_table.c.number == number)
    cleared = connection.execute(update(step_table).where(condition).values(cleared=True)).rowcount > 0
    if cleared and goes_on:
        park(connection, task_id, parked=False)
    return cleared


def park(connection: Connection, task_id: int, *, parked: bool) -> None:
    """Note in the job row, if there is one, whether the task rests until work is started for it."""
    connection.execute(update(job_table).where(job_table.c.task_id == task_id).values(parked=parked))
