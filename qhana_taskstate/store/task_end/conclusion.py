"""The statements at the end of each script after which a task may have ended: decide, show, owe, and read the outcome.

They need the lock of the job row, had in an earlier statement: so they see all that was committed before it was had.
The row of the task is not waited for: what a plugin holds is shown later. What takes more than SQL to show is left to
`task_row.complete`, in the same transaction: how many members are done, and a log that was longer before.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Float,
    Integer,
    String,
    and_,
    bindparam,
    case,
    func,
    literal,
    or_,
    select,
    true,
    update,
)

from ...database.dialects import KINDS
from ...database.scripts.prepared import PerDatabase
from ...database.scripts.statement import Statement
from ...database.tables.executions import execution_table
from ...database.tables.jobs import hold_table, job_table
from ...database.tables.log import log_table
from ...database.tables.runner import DEFAULT_TARGET, step_table, task_table
from ...database.tables.types import bare_type
from ...events import TaskEvent
from ...states import TaskStatus
from ..executions.conditions import IS_JOB, IS_OURS
from ..executions.keys import IS_NAMED
from ..task import outbox
from ..task.steps import is_open_step

_of_task: Any = bindparam("of_task")

_is_open = or_(
    select(literal(1)).where(execution_table.c.task_id == _of_task, execution_table.c.closed_at.is_(None)).exists(),
    select(literal(1)).where(hold_table.c.task_id == _of_task).exists(),
)
_has_step = select(literal(1)).select_from(step_table).where(is_open_step(_of_task)).exists()

#: Members beside this execution; Celery's own helpers are none.
_is_several = or_(
    bindparam("to_come", type_=Integer()) > 0,
    select(literal(1))
    .where(
        execution_table.c.task_id == _of_task,
        execution_table.c.celery_id != bindparam("of_celery_id", type_=String()),
        execution_table.c.name.not_like(literal("celery.%", String())),
    )
    .exists(),
)
_counts_members = and_(bindparam("counts_members", type_=Integer()) == 1, _is_several)

_free_row = select(task_table.c.id).where(task_table.c.id == _of_task).with_for_update(skip_locked=True, key_share=True)
#: Whether nobody else holds the row of the task; it is locked then.
_is_free = _free_row.exists()
_unfinished = select(literal(1)).where(task_table.c.id == _of_task, task_table.c.finished_at.is_(None)).exists()

#: Whether the end is decided and is to be shown in this transaction, which has not done so yet.
_shows_end = (
    select(literal(1))
    .where(job_table.c.task_id == _of_task, job_table.c.end_copied.is_(True), job_table.c.end_status.is_not(None))
    .exists()
)

_is_at_rest = and_(
    IS_JOB,
    job_table.c.end_status.is_(None),
    job_table.c.had_work.is_(True),
    job_table.c.open_ended.is_(False),
    job_table.c.parked.is_(False),
    ~_is_open,
)
#: Parks a task that has come to rest at an open step.
_PARK = update(job_table).where(_is_at_rest, _has_step).values(parked=True)

_moment = bindparam("moment", type_=bare_type(job_table.c.ended_at))


def _decided(moment: Any) -> dict[Any, Any]:
    word = bindparam("end_status", type_=bare_type(job_table.c.end_status))
    return {job_table.c.end_status: word, job_table.c.ended_at: moment, job_table.c.end_copied: _is_free}


#: A member that was waited for may have taken its moment later; nothing of a task is later than its good end.
_last_close = select(func.max(execution_table.c.closed_at)).where(execution_table.c.task_id == _of_task)
#: Decides that a task has ended well if nothing is left of it to come.
_END_IF_AT_REST = (
    update(job_table).where(_is_at_rest).values(_decided(func.coalesce(_last_close.scalar_subquery(), _moment)))
)

_closed_now = (
    select(literal(1))
    .where(
        IS_NAMED,
        execution_table.c.closed_at == bindparam("moment", type_=bare_type(execution_table.c.closed_at)),
        execution_table.c.state == bindparam("state", type_=bare_type(execution_table.c.state)),
    )
    .exists()
)
_ended_now = select(literal(1)).where(IS_JOB, job_table.c.ended_at == _moment).exists()
#: Decides that a task has failed with the execution that this transaction has closed.
_FAIL = update(job_table).where(IS_JOB, job_table.c.end_status.is_(None), _closed_now).values(_decided(_moment))

#: An end clears an open step. One that was found to be good has none.
_CLEAR_STEP = update(step_table).where(is_open_step(_of_task), _shows_end, _unfinished).values(cleared=True)


@dataclass(frozen=True, slots=True)
class Shown:
    """What a script brings to show, beside the end; it names the statements that are meant.

    Attributes:
        fails: The task fails rather than ends well.
        log: Log entries, whose text is bound as `log_text` and their number as `log_count`.
        lines: Entries that the plugin wrote are among them, beside that of a failure.
        progress: Progress, bound as `new_progress_value` and so on.
    """

    fails: bool = False
    log: bool = False
    lines: bool = False
    progress: bool = False


#: The log consists of what this transaction wrote, and of nothing else.
_is_new_log = (
    select(func.count()).select_from(
        select(literal(1))
        .where(log_table.c.task_id == _of_task)
        .limit(bindparam("log_limit", type_=Integer()))
        .subquery("some_entries")
    )
).scalar_subquery() == bindparam("log_count", type_=Integer())
_log_text = bindparam("log_text", type_=String())


@functools.cache
def _show(shown: Shown) -> Any:
    """Return the UPDATE of the row of the task."""
    columns = task_table.c
    word: Any = columns.task_status.type if shown.fails else bare_type(columns.task_status)
    ends = {
        columns.task_status: bindparam("task_status", type_=word),
        columns.finished_at: select(job_table.c.ended_at).where(job_table.c.task_id == _of_task).scalar_subquery(),
    }
    progress = _progress(shown)
    if not (shown.log or shown.progress):
        is_task = and_(columns.id == _of_task, columns.finished_at.is_(None))
        return update(task_table).where(is_task, _shows_end).values(ends | progress)
    values = {column: case((_shows_end, value), else_=column) for column, value in ends.items()} | progress
    if shown.log:
        is_empty = columns.task_log == ""
        values[columns.task_log] = case((and_(is_empty, _is_new_log), _log_text), else_=columns.task_log)
    free = _free_row.subquery("free_row")
    change = update(task_table).where(columns.id == free.c.id, columns.finished_at.is_(None), IS_OURS).values(values)
    # Twice for a plan that does not read the whole table. MariaDB would wait for the row that is named outside of the
    # look for a free one.
    of_task = change.where(columns.id == _of_task)
    return PerDatabase({name: change if kind.locks_what_it_reads else of_task for name, kind in KINDS.items()})


def _progress(shown: Shown) -> dict[Any, Any]:
    """Return what an UPDATE sets of the progress: at a good end it reaches its target, if the task has one member."""
    columns = task_table.c
    value = columns.progress_value
    target: Any = func.coalesce(columns.progress_target, literal(DEFAULT_TARGET, Float()))
    ends_well = and_(_shows_end, ~_counts_members)
    if not shown.progress:
        return {} if shown.fails else {value: case((and_(ends_well, value.is_not(None)), target), else_=value)}
    own = {
        column: bindparam(f"new_{column.name}", type_=bare_type(column))
        for column in (value, columns.progress_start, columns.progress_target, columns.progress_unit)
    }
    values: dict[Any, Any] = {column: case((_counts_members, column), else_=given) for column, given in own.items()}
    if not shown.fails:
        values[value] = case((ends_well, own[columns.progress_target]), (_counts_members, value), else_=own[value])
    return values


@functools.cache
def _owe(shown: Shown) -> Any:
    """Return the INSERT of what subscribers are owed."""
    ends = and_(_shows_end, _unfinished)
    details: ColumnElement[bool] = ends
    if shown.progress:
        details = or_(ends, and_(IS_OURS, _unfinished, ~_counts_members, _is_free))
    if shown.fails:
        # The entry of a failure is told with the end that it is the cause of; later failures tell nobody.
        details = or_(details, _ended_now)
    conditions = {TaskEvent.STATUS: ends, TaskEvent.DETAILS: IS_OURS if shown.lines else details}
    if shown.fails:
        conditions[TaskEvent.STEPS] = and_(ends, _has_step)
    return outbox.owing(conditions)


@functools.cache
def _look(shown: Shown) -> Any:
    """Return the query for what the script led to."""
    brings = shown.log or shown.progress
    complete: Any = true()
    if shown.log:
        text = select(task_table.c.task_log).where(task_table.c.id == _of_task).scalar_subquery()
        complete = and_(_is_new_log, text == _log_text)
    flags = (job_table.c.end_copied.is_(True), _is_open, _is_several, _is_free if brings else true(), complete)
    return select(job_table.c.end_status, *(case((flag, 1), else_=0) for flag in flags)).where(IS_JOB)


def conclude(shown: Shown, values: dict[str, Any], *, webhooks: bool) -> list[Statement]:
    """Return the statements; the answer of the last is called `look`, and read by `Look`.

    Args:
        shown: What there is to show.
        values: Those of `conditions.token_of` and `keys.named`; `moment`, `state`, `counts_members`, `to_come`; and
            what `shown` names.
        webhooks: Whether subscribers are told by us.
    """
    word = (TaskStatus.ERROR if shown.fails else TaskStatus.SUCCESS).value
    values = {**values, "end_status": word, "task_status": word}
    if shown.fails:
        found = [Statement(_FAIL, values)]
    else:
        found = [Statement(_PARK, values), Statement(_END_IF_AT_REST, values)]
    if webhooks:
        found.append(Statement(_owe(shown), values, announces=True))
    if shown.fails:
        found.append(Statement(_CLEAR_STEP, values))
    return [*found, Statement(_show(shown), values), Statement(_look(shown), values, name="look")]


@dataclass(frozen=True, slots=True)
class Look:
    """What is there at the end of a script.

    Attributes:
        end_status: The decided end, None while the task goes on.
        copied: The row of the task shows it, or will at the commit.
        open: Executions or holds are open.
        several: The task has other members.
        free: Nobody else holds the row of the task.
        complete: The log in the row of the task is up to date.
    """

    end_status: str | None
    copied: bool
    open: bool
    several: bool
    free: bool
    complete: bool

    @classmethod
    def of(cls, row: Any) -> Look:
        """Read the answer to the last statement."""
        return cls(row[0], *map(bool, row[1:]))
