"""The end of a task that is set by hand: once, whatever other sessions do. Core statements; nothing here commits."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select, update

from . import steps
from .rows import lock_task
from .runner_tables import DEFAULT_TARGET, task_table
from .states import ERROR_WORDS, UNKNOWN, TaskEvent, TaskStatus
from .tables import job_table


class TaskFinishedWarning(UserWarning):
    """A new status for a task that has already ended was ignored."""


@dataclass(frozen=True, slots=True)
class Ending:
    """What the row of a task says after an attempt to change its status.

    Attributes:
        status: The word in the row.
        finished_at: When the task ended, aware UTC; None while it has not.
        accepted: Whether the attempt had its way.
        ended: Whether the task was ended by it.
        cleared_step: Whether a step was open until then.
        progress_value: The reported progress, None if there is none.
    """

    status: str | None
    finished_at: datetime | None
    accepted: bool
    ended: bool = False
    cleared_step: bool = False
    progress_value: float | None = None


_COLUMNS = (
    task_table.c.task_status,
    task_table.c.finished_at,
    task_table.c.progress_value,
    task_table.c.progress_target,
)


def events_of(ending: Ending) -> tuple[TaskEvent, ...]:
    """Return what an attempt to change the status raises."""
    if not ending.ended:
        return ()
    return (TaskEvent.STATUS, TaskEvent.DETAILS, *([TaskEvent.STEPS] if ending.cleared_step else []))


def set_status(connection: Connection, task_id: int, word: str | None) -> Ending | None:
    """Write a word that ends nothing: PENDING or None.

    Returns:
        What the row says then; None if there is no such row.
    """
    written = connection.execute(
        update(task_table)
        .where(task_table.c.id == task_id, task_table.c.finished_at.is_(None))
        .values(task_status=word)
    )
    if written.rowcount:
        return Ending(word, None, accepted=True)
    row = lock_task(connection, task_id, *_COLUMNS)
    return None if row is None else Ending(row.task_status, row.finished_at, accepted=False)


def end(
    connection: Connection,
    task_id: int,
    word: str | None,
    moment: datetime,
    *,
    progress_value: float | None = None,
    progress_target: float | None = None,
) -> Ending | None:
    """End a task unless it has ended.

    Also decides the end in the job row, so that the tracker does not end the task once more, clears an open step,
    and on SUCCESS sets a reported progress to its target. An end that the tracker has decided and could not write
    into the row yet wins and is written.

    Args:
        connection: In whose transaction to write. The rows stay locked until it ends.
        task_id: Id of the task.
        word: SUCCESS, ERROR, or None for an end of unknown kind.
        moment: When it ended, aware UTC.
        progress_value: Progress about to be written in the same transaction; None takes that of the row.
        progress_target: The same for its target.

    Returns:
        What the row says then; None if there is no such row.
    """
    row = lock_task(connection, task_id, *_COLUMNS)
    if row is None:
        return None
    if row.finished_at is not None:
        return Ending(row.task_status, row.finished_at, accepted=False, progress_value=row.progress_value)
    accepted = True
    decided = _decide(connection, task_id, word, moment)
    if decided is not None:
        accepted = _job_word(decided[0]) == _job_word(word)
        word, moment = decided
    value = row.progress_value if progress_value is None else progress_value
    if word == TaskStatus.SUCCESS and value is not None:
        value = row.progress_target if progress_target is None else progress_target
        value = DEFAULT_TARGET if value is None else value
    connection.execute(
        update(task_table)
        .where(task_table.c.id == task_id, task_table.c.finished_at.is_(None))
        .values(task_status=word, finished_at=moment, progress_value=value)
    )
    cleared = steps.clear(connection, task_id)
    return Ending(word, moment, accepted=accepted, ended=True, cleared_step=cleared, progress_value=value)


def name_end(connection: Connection, task_id: int, word: str) -> None:
    """Give an end of unknown kind, written before in the same transaction, its word."""
    connection.execute(
        update(job_table)
        .where(job_table.c.task_id == task_id, job_table.c.end_status == UNKNOWN)
        .values(end_status=_job_word(word))
    )
    connection.execute(
        update(task_table)
        .where(task_table.c.id == task_id, task_table.c.task_status.is_(None))
        .values(task_status=word)
    )


def _decide(
    connection: Connection, task_id: int, word: str | None, moment: datetime
) -> tuple[str | None, datetime] | None:
    """Decide the end in the job row; returns the end that was decided there before, if any."""
    decided = connection.execute(
        update(job_table)
        .where(job_table.c.task_id == task_id, job_table.c.end_status.is_(None))
        .values(end_status=_job_word(word), ended_at=moment, end_copied=True)
    )
    if decided.rowcount:
        return None
    # Locked, so that it is read as it is now also in a host's transaction of REPEATABLE READ.
    job = connection.execute(
        select(job_table.c.end_status, job_table.c.ended_at).where(job_table.c.task_id == task_id).with_for_update()
    ).one_or_none()
    if job is None:
        return None
    connection.execute(update(job_table).where(job_table.c.task_id == task_id).values(end_copied=True))
    return None if job.end_status == UNKNOWN else job.end_status, job.ended_at or moment


def _job_word(word: str | None) -> str:
    if word is None:
        return UNKNOWN
    return TaskStatus.ERROR.value if word in ERROR_WORDS else word
