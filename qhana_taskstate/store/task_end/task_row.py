"""Brings the `ProcessingTask` row up to date: an end, the log, the progress; later if somebody holds it."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, exists, select, type_coerce, update

from ...clock import now
from ...database.dialects import limit_lock_wait
from ...database.tables.jobs import job_table
from ...database.tables.runner import subscription_table, task_table
from ...database.tables.types import bare_type
from ...events import TaskEvent
from ...facts import Progress
from ...states import TaskStatus
from ..log import entries
from ..progress.canvas import Canvas
from ..progress.own import IS_OWN
from ..progress.rows import canvas_of, progress_of, reach_target, show_progress
from ..task import outbox
from .end import DECIDE, copy_end

#: Whether anybody is to be notified of changes of the task.
is_subscribed = exists().where(subscription_table.c.task_id == bindparam("of_task"))


#: What the row of the task shows so far.
_SHOWN = select(
    task_table.c.id,
    type_coerce(task_table.c.finished_at, bare_type(task_table.c.finished_at)).label("finished_at"),
    # Asked along the way, so that a task without subscribers pays nothing.
    is_subscribed.label("subscribed"),
    IS_OWN.label("has_own_progress"),
    task_table.c.progress_value,
    # As they are: `store/progress/rows` knows the defaults.
    *(
        type_coerce(column, bare_type(column)).label(column.name)
        for column in (task_table.c.progress_start, task_table.c.progress_target, task_table.c.progress_unit)
    ),
).where(task_table.c.id == bindparam("of_task"))


# A key share, so that a plugin's uncommitted output, which refers to the row, is no reason to wait (PostgreSQL).
_LOCK_TASK = _SHOWN.with_for_update(key_share=True)


LOCK_TASK_IF_FREE = _SHOWN.with_for_update(skip_locked=True, key_share=True)


def is_free(connection: Connection, task_id: int) -> bool:
    """Tell whether nobody else holds the row of a task; it is locked then."""
    return connection.execute(LOCK_TASK_IF_FREE, {"of_task": task_id}).one_or_none() is not None


def finish(
    connection: Connection,
    task_id: int,
    ended: TaskStatus | None,
    *,
    log: bool = False,
    progress: Progress | Canvas | None = None,
    has_no_step: bool = False,
) -> bool:
    """Decide the end of a task whose job row the caller holds, and show what is new in the `ProcessingTask` row.

    Returns:
        False if somebody holds that row: the end is decided all the same, and shown later.
    """
    if ended is None and not log and progress is None:
        return True
    locked = connection.execute(LOCK_TASK_IF_FREE, {"of_task": task_id}).one_or_none()
    moment = now()
    if ended is not None:
        connection.execute(
            DECIDE,
            {"of_task": task_id, "end_status": ended.value, "ended_at": moment, "end_copied": locked is not None},
        )
    if locked is None:
        if log:
            # The log can be read from its entries already.
            outbox.add(connection, task_id, (TaskEvent.DETAILS,))
        return False
    events: set[TaskEvent] = {TaskEvent.DETAILS} if log else set()
    if isinstance(progress, Canvas):
        progress = progress_of(connection, task_id, progress, locked)
    if progress is not None and locked.finished_at is None:
        show_progress(connection, task_id, progress)
        events.add(TaskEvent.DETAILS)
    if ended is not None and locked.finished_at is None:
        events |= copy_end(connection, task_id, ended, moment, clear_steps=not has_no_step)
    if log:
        entries.refresh_column(connection, task_id)
    if locked.subscribed:
        outbox.add(connection, task_id, events)
    return True


def complete(
    connection: Connection,
    task_id: int,
    ended: TaskStatus | None,
    *,
    log: bool,
    counts: bool,
    own: Progress | None,
    to_come: int,
    told: bool,
) -> None:
    """Show in the row of a task, which the caller has locked, what the statements of `conclusion` leave to Python.

    Args:
        connection: In whose transaction to write.
        task_id: Id of the task.
        ended: The end that the transaction has decided, None if it has not.
        log: The runner's column is to be brought up to date.
        counts: How many of the members are done is to be shown, if there are several.
        own: The progress that a lone execution shows.
        to_come: How many members are known to follow.
        told: Subscribers are told anyway that details have changed.
    """
    if counts:
        row = connection.execute(_SHOWN, {"of_task": task_id}).one()
        canvas = canvas_of(connection, task_id, to_come=to_come, ended=ended == TaskStatus.SUCCESS)
        progress = progress_of(connection, task_id, canvas, row) if canvas.is_several else own
        if progress is not None:
            show_progress(connection, task_id, progress)
            if not told:
                outbox.add(connection, task_id, (TaskEvent.DETAILS,))
        elif ended == TaskStatus.SUCCESS:
            reach_target(connection, task_id)
    if log:
        entries.refresh_column(connection, task_id)


def show(connection: Connection, task_id: int) -> bool:
    """Bring the `ProcessingTask` row up to date with the decided end and the log; waits for the row's lock.

    Returns:
        Whether the row is up to date now.
    """
    limit_lock_wait(connection)
    locked = connection.execute(_LOCK_TASK, {"of_task": task_id}).one_or_none()
    # Waiting for the job row is safe here: who holds one never waits for a `ProcessingTask` row.
    job = connection.execute(
        select(job_table.c.end_status, job_table.c.ended_at, job_table.c.end_copied)
        .where(job_table.c.task_id == task_id)
        .with_for_update()
    ).one_or_none()
    if job is not None and job.end_status is not None and not job.end_copied:
        if locked is not None and locked.finished_at is None:
            outbox.add(connection, task_id, copy_end(connection, task_id, TaskStatus(job.end_status), job.ended_at))
        connection.execute(update(job_table).where(job_table.c.task_id == task_id).values(end_copied=True))
    if locked is not None:
        entries.refresh_column(connection, task_id)
    return True


def uncopied(connection: Connection, limit: int = 100) -> list[int]:
    """Return ids of tasks whose decided end the `ProcessingTask` row does not show yet."""
    rows = connection.execute(
        select(job_table.c.task_id)
        .where(job_table.c.end_copied.is_(False), job_table.c.end_status.is_not(None))
        .limit(limit)
    )
    return [row.task_id for row in rows]
