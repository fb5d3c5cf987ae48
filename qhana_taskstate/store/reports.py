"""Writes what a running execution has reported: log, progress, published messages."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from ..facts import ExecutionKey, Progress, Publication, TaskRef
from .executions.registration import register
from .log import entries
from .progress.canvas import Canvas
from .progress.rows import canvas_of, set_progress
from .task.jobs import lock_job
from .task_end.task_row import finish, is_free


def show_canvas(connection: Connection, task_id: int, *, counts_members: bool = True) -> None:
    """Show in the row of a task what its members that have ended leave to the flush, if the row is free.

    That is how far they have come, and what they logged. They are counted before the job row is locked: many take a
    while, and what is shown never goes back.

    Args:
        connection: In whose transaction to write.
        task_id: Id of the task.
        counts_members: Whether a task of several members shows how many of them are done.
    """
    canvas = canvas_of(connection, task_id) if counts_members else None
    if lock_job(connection, task_id) is None:
        return
    if canvas is not None and canvas.is_several:
        finish(connection, task_id, None, progress=canvas)
    if is_free(connection, task_id):
        entries.refresh_column(connection, task_id)


def report(
    connection: Connection,
    ref: TaskRef,
    key: ExecutionKey,
    *,
    lines: Sequence[str] = (),
    progress: Progress | None = None,
    publications: Sequence[Publication] = (),
    counts_members: bool = True,
    to_come: int = 0,
    deadline_seconds: float,
) -> bool:
    """Write what a running execution reported so far.

    Args:
        connection: In whose transaction to write.
        ref: The task.
        key: Key of the execution.
        lines: Log entries.
        progress: Its progress. The row shows it if it is alone, otherwise how far all members have come.
        publications: Messages that it published.
        counts_members: Whether a task of several members shows how many of them are done.
        to_come: How many members are known to follow it.
        deadline_seconds: As for `register`.

    Returns:
        False if the row does not show all of it yet: a plugin holds it, or members are being submitted.
    """
    job = lock_job(connection, ref.task_id)
    if job is None or job.ref != ref:
        return True
    register(connection, ref.task_id, publications, deadline_seconds=deadline_seconds)
    if lines:
        entries.append(connection, ref.task_id, lines, column=False)
    shown: Progress | Canvas | None = progress
    held = False
    if progress is not None:
        set_progress(connection, ref.task_id, key, progress)
        canvas = canvas_of(connection, ref.task_id, to_come=to_come)
        if counts_members and (canvas.held or canvas.is_several):
            shown, held = canvas, canvas.held
    if not lines and shown is None:
        return True
    return finish(connection, ref.task_id, None, log=bool(lines), progress=shown) and not held
