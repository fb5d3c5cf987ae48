"""Looks what of a task is still to come: open executions, holds, an open step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, bindparam, case, func, literal, or_, select, true, update

from ...database.tables.executions import execution_table
from ...database.tables.jobs import hold_table, job_table
from ...database.tables.runner import step_table
from ...states import TaskStatus
from ..task.jobs import Job
from ..task.steps import is_open_step


def look_at(others: ColumnElement[bool]) -> Any:
    """Return the query for what of a task is left to come; of its executions it looks at those that are meant."""
    of_task = execution_table.c.task_id == bindparam("of_task")
    is_any_open = or_(
        select(literal(1)).where(of_task, execution_table.c.closed_at.is_(None), others).exists(),
        select(literal(1)).where(hold_table.c.task_id == bindparam("of_task")).exists(),
    )
    is_waiting = select(literal(1)).select_from(step_table).where(is_open_step(bindparam("of_task"))).exists()
    # Of the members only two are counted: this is asked at every close, and must not grow with the canvas.
    two_members = select(literal(1)).where(of_task).limit(2).subquery("two_members")
    return select(
        case((is_any_open, 1), else_=0).label("open"),
        case((is_waiting, 1), else_=0).label("waiting"),
        select(func.count()).select_from(two_members).scalar_subquery().label("members"),
    )


#: The query for all of its executions.
_LOOK = look_at(true())


#: So many members make a task of several.
SEVERAL: Final = 2


@dataclass(frozen=True, slots=True)
class Remaining:
    """What is left of a task.

    Attributes:
        open: Executions or holds are open.
        several: It has had more than one execution.
        ended: SUCCESS if nothing is left to come.
    """

    open: bool
    several: bool = False
    ended: TaskStatus | None = None


#: Of a task whose end needs no look.
NOTHING_LEFT: Final = Remaining(open=False)


def look_at_task(connection: Connection, job: Job) -> Remaining:
    """Look whether nothing of a task is left to come. The caller holds its job row."""
    row = connection.execute(_LOOK, {"of_task": job.ref.task_id}).one()
    several = row.members >= SEVERAL
    if row.open or not job.had_work or job.open_ended:
        return Remaining(open=bool(row.open), several=several)
    if row.waiting and not job.parked:
        connection.execute(update(job_table).where(job_table.c.task_id == job.ref.task_id).values(parked=True))
    waits = row.waiting or job.parked
    return Remaining(open=False, several=several, ended=None if waits else TaskStatus.SUCCESS)
