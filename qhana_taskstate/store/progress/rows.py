"""Progress in the rows: writes that of executions, and what of it the row of the task shows."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, bindparam, case, func, select, update

from ...database.tables.executions import execution_table
from ...database.tables.jobs import hold_table
from ...database.tables.runner import DEFAULT_TARGET, task_table
from ...facts import ExecutionKey, Progress
from ..executions.keys import is_of_key
from .canvas import MOST_OF_ONE, Canvas, canvas_progress, is_of_canvas, is_same

_length = execution_table.c.progress_target - execution_table.c.progress_start


_share = (execution_table.c.progress_value - execution_table.c.progress_start) / _length


_part = case(
    (execution_table.c.progress_value.is_(None), 0.0),
    (execution_table.c.closed_at.is_not(None), 0.0),
    (_length == 0, MOST_OF_ONE),
    (_share <= 0, 0.0),
    (_share >= MOST_OF_ONE, MOST_OF_ONE),
    else_=_share,
)


_COUNT_MEMBERS = select(
    func.count(execution_table.c.celery_id.distinct()).label("known"),
    func.count(case((execution_table.c.closed_at.is_(None), execution_table.c.celery_id)).distinct()).label("open"),
    func.sum(_part).label("parts"),
    select(func.count()).where(hold_table.c.task_id == bindparam("of_task")).scalar_subquery().label("holds"),
).where(execution_table.c.task_id == bindparam("of_task"), execution_table.c.name.not_like("celery.%"))


def canvas_of(connection: Connection, task_id: int, *, to_come: int = 0, ended: bool = False) -> Canvas:
    """Count the members of a task."""
    row = connection.execute(_COUNT_MEMBERS, {"of_task": task_id}).one()
    return Canvas(
        known=row.known,
        done=row.known - row.open,
        parts=float(row.parts or 0.0),
        to_come=0 if ended else to_come,
        held=bool(row.holds),
        ended=ended,
    )


def _shown(row: Row[Any]) -> Progress | None:
    if row.progress_value is None:
        return None
    # NULL in the database of a runner reads as its default.
    start, target, unit = row.progress_start, row.progress_target, row.progress_unit
    return Progress(
        row.progress_value, start or 0.0, 100.0 if target is None else target, "%" if unit is None else unit
    )


def progress_of(connection: Connection, task_id: int, canvas: Canvas, row: Row[Any]) -> Progress | None:
    """Return what a task of several members is to show; None if that stays as it is.

    What a plugin wrote into the row wins. What the row shows is ours if a canvas showed it, or if it is what an
    execution reported while it was alone.

    Args:
        connection: Where to read.
        task_id: Id of the task.
        canvas: Its members.
        row: What is shown, and whether it is marked as the plugin's (`has_own_progress`).
    """
    shown = _shown(row)
    if shown is not None and row.has_own_progress:
        return None
    if canvas.held and not canvas.ended:
        # The number of members grows from one moment to the next.
        return None
    if shown is not None and not is_of_canvas(shown) and not _was_reported(connection, task_id, shown):
        return None
    progress = canvas_progress(canvas, shown)
    return None if shown is not None and is_same(progress, shown) else progress


def _was_reported(connection: Connection, task_id: int, progress: Progress) -> bool:
    table = execution_table.c
    reported = connection.execute(
        select(table.progress_value, table.progress_start, table.progress_target, table.progress_unit)
        .where(table.task_id == task_id, table.progress_value.is_not(None), table.progress_unit == progress.unit)
        .distinct()
    )
    return any(is_same(Progress(*row), progress) for row in reported)


def show_progress(connection: Connection, task_id: int, progress: Progress) -> None:
    connection.execute(
        update(task_table)
        .where(task_table.c.id == task_id)
        .values(
            progress_value=progress.value,
            progress_start=progress.start,
            progress_target=progress.target,
            progress_unit=progress.unit,
        )
    )


def reach_target(connection: Connection, task_id: int) -> None:
    """Let the progress that the row of a task shows, if it shows one, be at its target, as at the end of a success."""
    target = func.coalesce(task_table.c.progress_target, DEFAULT_TARGET)
    connection.execute(
        update(task_table)
        .where(task_table.c.id == task_id, task_table.c.progress_value.is_not(None))
        .values(progress_value=target)
    )


def set_progress(connection: Connection, task_id: int, key: ExecutionKey, progress: Progress) -> None:
    connection.execute(
        update(execution_table)
        .where(is_of_key(execution_table, task_id, key))
        .values(
            progress_value=progress.value,
            progress_start=progress.start,
            progress_target=progress.target,
            progress_unit=progress.unit,
        )
    )
