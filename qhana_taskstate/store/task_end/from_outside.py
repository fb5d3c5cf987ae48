"""Ends a task from outside: cancelled, finished by hand, a start that failed; or evaluates it again."""

from __future__ import annotations

from sqlalchemy import Connection, delete, select

from ...database.tables.jobs import hold_table
from ...database.tables.runner import task_table
from ...facts import ExecutionKey, TaskRef
from ...states import TaskStatus
from ..executions.registration import is_registered
from ..log import entries
from ..task.jobs import find_job, lock_job, take_up
from .evaluation import evaluation
from .outcome import Outcome
from .task_row import finish


def withdraw(connection: Connection, ref: TaskRef, *, key: ExecutionKey | None, hold_id: str | None) -> Outcome:
    """End a task as ERROR if its last start was committed although that failed; its messages were not sent.

    Args:
        connection: In whose transaction to write.
        ref: The task.
        key: Key of the message that the start registered, if it was one.
        hold_id: The hold of the start, if it had one.
    """
    job = find_job(connection, ref.task_id)
    if job is None or job.ref != ref:
        return Outcome()
    held = select(hold_table.c.id).where(hold_table.c.id == hold_id)
    committed = connection.execute(held).first() is not None if hold_id is not None else False
    if not committed and (key is None or not is_registered(connection, ref.task_id, key)):
        return Outcome()
    entry = "its start was not completed: the connection to the database broke while it was committed"
    return end(connection, ref.task_id, TaskStatus.ERROR, entry=entry)


def end(
    connection: Connection, task_id: int, status: TaskStatus, *, entry: str | None = None, give_up: bool = True
) -> Outcome:
    """End a task from outside, whatever of it is open.

    Args:
        connection: In whose transaction to write.
        task_id: Id of the task.
        status: SUCCESS or ERROR.
        entry: A log entry to add, only if this call ends the task.
        give_up: Whether open holds are given up.

    Returns:
        `ended` is None if it had already ended.
    """
    job = lock_job(connection, task_id)
    finished = connection.execute(select(task_table.c.finished_at).where(task_table.c.id == task_id)).scalar()
    if finished is not None or (job is not None and job.end_status is not None):
        return Outcome()
    if give_up:
        connection.execute(delete(hold_table).where(hold_table.c.task_id == task_id))
    if job is None:
        take_up(connection, task_id)
    if entry:
        entries.append(connection, task_id, [entry], column=False)
    shown = finish(connection, task_id, status, log=bool(entry))
    return Outcome(changed=True, ended=status, shown=shown)


def evaluate(connection: Connection, task_id: int) -> Outcome:
    """Look once more whether a task has ended; for upkeep."""
    job = lock_job(connection, task_id)
    if job is None or job.end_status is not None:
        return Outcome()
    return evaluation(job.ref)(connection)
