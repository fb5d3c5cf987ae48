"""The end of a task: what it writes, and that it comes once, whatever other sessions do.

The recorder decides the end in the job row and shows it in the `ProcessingTask` row when that is free; a word set by
hand does both at once. Core statements on a connection that is handed in; nothing here commits.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Float, bindparam, case, func, literal, select, update

from ...database.tables.jobs import job_table
from ...database.tables.runner import DEFAULT_TARGET, task_table
from ...database.tables.types import bare_type
from ...events import TaskEvent
from ...states import ERROR_WORDS, UNKNOWN, TaskStatus
from ..task import steps as task_steps
from ..task.locks import lock_task


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


#: Decides the end in the job row, unless it is decided.
DECIDE = (
    update(job_table)
    .where(job_table.c.task_id == bindparam("of_task"), job_table.c.end_status.is_(None))
    .values(
        {
            job_table.c[name]: bindparam(name, type_=bare_type(job_table.c[name]))
            for name in ("end_status", "ended_at", "end_copied")
        }
    )
)
#: The type of each value that shows an end. Only the word needs care: which word says ERROR is a setting.
_SHOWN_TYPES = {"task_status": task_table.c.task_status.type, "finished_at": bare_type(task_table.c.finished_at)}
#: Shows the end in the `ProcessingTask` row, unless that has ended.
_SHOW = (
    update(task_table)
    .where(task_table.c.id == bindparam("of_task"), task_table.c.finished_at.is_(None))
    .values({task_table.c[name]: bindparam(name, type_=type_) for name, type_ in _SHOWN_TYPES.items()})
)
_SHOW_WITH_PROGRESS = _SHOW.values({task_table.c.progress_value: bindparam("progress_value", type_=Float())})
#: Shows the end SUCCESS in the `ProcessingTask` row, unless that has ended; does in SQL what `progress_at_end` does.
SHOW_SUCCESS = _SHOW.values(
    {
        # This word is the same whatever the settings say.
        task_table.c.task_status: bindparam("task_status", type_=bare_type(task_table.c.task_status)),
        task_table.c.progress_value: case(
            (task_table.c.progress_value.is_(None), None),
            else_=func.coalesce(task_table.c.progress_target, literal(DEFAULT_TARGET, Float)),
        ),
    }
)


def progress_at_end(word: str | None, value: float | None, target: float | None) -> float | None:
    """Return the progress that a task has at its end: SUCCESS sets a reported one, 0 too, to its target.

    Args:
        word: SUCCESS, ERROR, or None for an end of unknown kind.
        value: What was reported, None if nothing was.
        target: Its target; None stands for the default.
    """
    if word != TaskStatus.SUCCESS or value is None:
        return value
    return DEFAULT_TARGET if target is None else target


def copy_end(
    connection: Connection, task_id: int, status: TaskStatus, moment: datetime, *, clear_steps: bool = True
) -> set[TaskEvent]:
    """Write an end into the `ProcessingTask` row, which the caller has locked; returns what that raises."""
    values = {"of_task": task_id, "task_status": status.value, "finished_at": moment}
    connection.execute(SHOW_SUCCESS if status == TaskStatus.SUCCESS else _SHOW, values)
    if clear_steps and task_steps.clear(connection, task_id):
        return set(_END_AND_STEP)
    return set(_END)


#: What an end raises, without and with a step that it cleared.
_END = frozenset({TaskEvent.STATUS, TaskEvent.DETAILS})
_END_AND_STEP = _END | {TaskEvent.STEPS}


_COLUMNS = (
    task_table.c.task_status,
    task_table.c.finished_at,
    task_table.c.progress_value,
    task_table.c.progress_target,
)


def events_of(ending: Ending) -> set[TaskEvent]:
    """Return what an attempt to change the status raises."""
    if not ending.ended:
        return set()
    return set(_END_AND_STEP if ending.cleared_step else _END)


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

    Also decides the end in the job row, so that the recorder does not end the task once more, clears an open step,
    and on SUCCESS sets a reported progress to its target. An end that the recorder has decided and could not write
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
    value = progress_at_end(word, value, row.progress_target if progress_target is None else progress_target)
    connection.execute(
        _SHOW_WITH_PROGRESS,
        {"of_task": task_id, "task_status": word, "finished_at": moment, "progress_value": value},
    )
    cleared = task_steps.clear(connection, task_id)
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
        DECIDE, {"of_task": task_id, "end_status": _job_word(word), "ended_at": moment, "end_copied": True}
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
