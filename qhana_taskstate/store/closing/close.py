"""Closes an execution, and ends its task if nothing else is open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, bindparam, case, delete, func, literal, not_, select, update

from ...clock import now
from ...database.inserts import insert_absent
from ...database.pipeline import Batch
from ...database.tables.base import NAME_LENGTH
from ...database.tables.executions import execution_table, message_table
from ...database.tables.jobs import job_table
from ...database.tables.runner import task_table
from ...database.tables.types import bare_type
from ...facts import ExecutionKey, Failure, Progress, Publication, TaskRef
from ...states import CHORD_UNLOCK, ExecutionState, TaskStatus
from ...texts import LONGEST_TEXT, clean, cut
from ..ending.end import DECIDE, SHOW_SUCCESS
from ..ending.outcome import Outcome
from ..ending.remaining import NOTHING_LEFT, SEVERAL, look_at, look_at_task
from ..ending.showing import LOCK_TASK_IF_FREE, finish, is_subscribed
from ..executions.conditions import THIS, is_of_token
from ..executions.keys import is_of_key, key_columns, named
from ..executions.registration import register
from ..log import entries
from ..progress.canvas import Canvas
from ..progress.shown import canvas_of, set_progress
from ..task.jobs import LOCK_JOB_BRIEFLY, lock_job
from .verdict import Asks, Fails, shows_members, verdict_of

#: How many characters of a traceback are kept.
_LONGEST_TRACEBACK: Final = 16 * LONGEST_TEXT


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """Everything that the end of an execution brings.

    Attributes:
        key: Its key.
        name: Name of the Celery task.
        state: A closed state.
        failure: Why it failed.
        publications: Messages that it published and that are not registered yet.
        lines: Log entries not written yet.
        progress: Its last progress if that is not written yet.
        counts_members: Whether a task of several members shows how many of them are done.
        to_come: How many members are known to follow.
        kept: Whether its message may have been kept.
        deadline_seconds: As for `register`; needed where there are publications.
    """

    key: ExecutionKey
    name: str
    state: ExecutionState
    failure: Failure | None = None
    publications: Sequence[Publication] = ()
    lines: Sequence[str] = ()
    progress: Progress | None = None
    counts_members: bool = True
    to_come: int = 0
    kept: bool = True
    deadline_seconds: float | None = None

    @property
    def is_usual(self) -> bool:
        """Whether it brings nothing but success, as most ends do."""
        brings = self.publications or self.lines or self.progress is not None or self.kept
        return self.state == ExecutionState.SUCCESS and not brings


#: Closes an execution that is open.
_CLOSE = (
    update(execution_table)
    .where(THIS)
    .values(
        {
            execution_table.c[name]: bindparam(name, type_=bare_type(execution_table.c[name]))
            for name in ("state", "closed_at", "error_type", "error", "traceback")
        }
    )
)


# The short way of a close: two statements that share a round trip, and one more that ends the task (PostgreSQL).

#: Closes the execution, as a part of the next statement.
_closed = _CLOSE.where(is_of_token).returning(literal(1)).cte("closed")


#: Closes the execution, and asks what else of the task is open. The question is answered from the state before the
#: close, so this execution is left out of it by its key.
_CLOSE_AND_LOOK = look_at(not_(THIS)).add_columns(
    case((is_subscribed, 1), else_=0).label("subscribed"),
    select(func.count()).select_from(_closed).scalar_subquery().label("changed"),
)


#: The row of the task, locked if nobody holds it.
_free_row = LOCK_TASK_IF_FREE.cte("free_row")


_is_free = select(literal(1)).select_from(_free_row).exists()


#: Decides the end SUCCESS in the job row, and says whether the row of the task shows it.
_decided = DECIDE.values({job_table.c.end_copied: _is_free}).returning(literal(1)).cte("decided")


#: Shows it there.
_ended = SHOW_SUCCESS.where(task_table.c.id == _free_row.c.id).returning(literal(1)).cte("ended")


#: Ends the task as SUCCESS by both; answers whether its row shows it.
_END_WELL = select(case((_is_free, 1), else_=0).label("shown")).add_cte(_decided, _ended)


def close_usually(batch: Batch, ref: TaskRef, closing: Closing) -> Outcome | None:
    """Do what `close` does, in two round trips, for an end that `is_usual`. Commits.

    Returns:
        None if the task asks for more than that, as one with subscribers does; what was written is rolled back then,
        and `close` is to be used.
    """
    moment = now()
    values = {
        **named(ref.task_id, closing.key),
        **_values_of_close(closing, moment),
        "of_token": ref.token,
        "end_status": TaskStatus.SUCCESS.value,
        "ended_at": moment,
        "task_status": TaskStatus.SUCCESS.value,
        "finished_at": moment,
    }
    # Two statements, for two snapshots: the look sees all that was committed before the lock was had.
    jobs, looks = batch.send(LOCK_JOB_BRIEFLY, _CLOSE_AND_LOOK, values=values)
    some_open, waiting, members, subscribed, changed = looks[0]
    if not changed:
        return None
    _, open_ended, parked, had_work, end_status, _ = jobs[0]
    if end_status is not None or some_open:
        batch.send(values=values, commit=True)
        return Outcome(changed=True, members_open=bool(some_open) and end_status is None)
    shows_members = members >= SEVERAL and closing.counts_members
    if waiting or parked or open_ended or not had_work or subscribed or shows_members:
        return None
    shown = batch.send(_END_WELL, values=values, commit=True)[0][0][0]
    return Outcome(changed=True, ended=TaskStatus.SUCCESS, shown=bool(shown))


def close(connection: Connection, ref: TaskRef, closing: Closing) -> Outcome:
    """Record the end of an execution and, if nothing else is open, of its task.

    The messages that it published are registered in the same transaction, before anything looks for what is open:
    so a task is never seen at its end between a parent's close and a child's registration.

    Args:
        connection: In whose transaction to write; on SQLite it must hold the write lock.
        ref: The task.
        closing: What the end brings. For an execution that is already closed only its reports count.

    Returns:
        What it led to. Nothing happens if the token belongs to no task.
    """
    job = lock_job(connection, ref.task_id)
    if job is None or job.ref != ref:
        return Outcome()
    if closing.publications:
        assert closing.deadline_seconds is not None  # noqa: S101  (both or neither; tells the type checker)
        register(connection, ref.task_id, closing.publications, deadline_seconds=closing.deadline_seconds)
    lines = list(closing.lines)
    if closing.progress is not None:
        set_progress(connection, ref.task_id, closing.key, closing.progress)
    changed = _close(connection, ref.task_id, closing)
    ended: TaskStatus | None = None
    remaining = NOTHING_LEFT
    match verdict_of(closing.state, closes=changed, has_ended=job.end_status is not None):
        case Fails():
            ended = TaskStatus.ERROR
            lines.append(_failure_entry(closing))
        case Asks():
            remaining = look_at_task(connection, job)
            ended = remaining.ended
    if lines:
        entries.append(connection, ref.task_id, lines, column=False)
    progress: Progress | Canvas | None = closing.progress
    reports = progress is not None
    if shows_members(ended, remaining, counts_members=closing.counts_members, reports=reports):
        canvas = canvas_of(connection, ref.task_id, to_come=closing.to_come, ended=ended == TaskStatus.SUCCESS)
        progress = canvas if canvas.is_several else progress
    shown = finish(
        connection,
        ref.task_id,
        ended,
        log=bool(lines),
        progress=progress,
        # What finds the end has found no open step.
        has_no_step=ended == TaskStatus.SUCCESS,
    )
    return Outcome(changed=changed, ended=ended, members_open=remaining.open, shown=shown)


def _close(connection: Connection, task_id: int, closing: Closing) -> bool:
    values = _values_of_close(closing, now())
    key = closing.key
    if closing.kept:
        connection.execute(delete(message_table).where(is_of_key(message_table, task_id, key)))
    if connection.execute(_CLOSE, {**named(task_id, key), **values}).rowcount:
        if closing.name == CHORD_UNLOCK and closing.state == ExecutionState.RETRY:
            _forget_earlier_attempts(connection, task_id, key)
        return True
    row = {
        **key_columns(task_id, key),
        "name": closing.name[:NAME_LENGTH],
        "deliveries": 0,
        "losses": 0,
        **values,
    }
    return insert_absent(connection, execution_table, [row]) > 0


def _forget_earlier_attempts(connection: Connection, task_id: int, key: ExecutionKey) -> None:
    """Leave no row a second behind while Celery asks by retries whether the header of a chord is ready."""
    columns = execution_table.c
    connection.execute(
        delete(execution_table).where(
            columns.task_id == task_id,
            columns.celery_id == key.celery_id,
            columns.retries < key.retries,
            columns.state == ExecutionState.RETRY.value,
        )
    )


def _values_of_close(closing: Closing, moment: datetime) -> dict[str, Any]:
    failure = closing.failure
    return {
        "state": closing.state.value,
        "closed_at": moment,
        "error_type": failure and clean(failure.type)[:NAME_LENGTH],
        "error": failure and clean(cut(failure.message)),
        "traceback": failure and failure.traceback and clean(cut(failure.traceback, _LONGEST_TRACEBACK)),
    }


def _failure_entry(closing: Closing) -> str:
    cause = closing.failure.summary if closing.failure else closing.state.value.lower()
    return cut(f"{closing.name} failed: {cause}")
