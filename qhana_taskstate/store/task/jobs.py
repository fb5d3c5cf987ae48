"""The job row of a task: the lock that puts its changes in order, and what the recorder knows."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from ...clock import now
from ...database.dialects import KINDS, LOCK_SECONDS, kind_of
from ...database.inserts import insert_absent
from ...database.scripts.prepared import PerDatabase
from ...database.scripts.statement import Statement
from ...database.tables.executions import execution_table, message_table, work_table
from ...database.tables.jobs import hold_table, job_table, own_progress_table, progress_table
from ...database.tables.log import log_table
from ...database.tables.runner import task_table
from ...database.tables.types import bare_type
from ...facts import TaskRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What the job row of a task said when it was read."""

    ref: TaskRef
    open_ended: bool
    parked: bool
    had_work: bool
    end_status: str | None


# The statements of every execution are built once: building costs several times what sending them does (measured:
# 80 to 160 µs against 15 to 60 µs).
_JOB_OF_TASK = job_table.c.task_id == bindparam("of_task")


_FIND_JOB = select(
    job_table.c.token, job_table.c.open_ended, job_table.c.parked, job_table.c.had_work, job_table.c.end_status
).where(_JOB_OF_TASK)


_LOCK_JOB = _FIND_JOB.with_for_update()


_LOCK_MILLISECONDS = str(LOCK_SECONDS * 1000)


# PostgreSQL evaluates the select list before it waits for the row (seen on 16), so that no statement of its own is
# needed to limit the wait.
_LIMIT_WAIT = func.set_config("lock_timeout", _LOCK_MILLISECONDS, True)
_LOCK_JOB_BRIEFLY = _LOCK_JOB.add_columns(_LIMIT_WAIT)


def new_token() -> str:
    """Return a token for a job row: 16 random hexadecimal digits."""
    return secrets.token_hex(8)


def find_job(connection: Connection, task_id: int) -> Job | None:
    """Read the job row of a task without locking it; None where nobody gave the task to us."""
    return _job_of(connection.execute(_FIND_JOB, {"of_task": task_id}).one_or_none(), task_id)


def lock_job(connection: Connection, task_id: int) -> Job | None:
    """Lock and read the job row of a task, in a statement of its own.

    What is looked for afterwards sees all that was committed before the lock was had; looking and locking in one
    statement loses the end when two executions close at the same instant (PostgreSQL, READ COMMITTED).
    """
    statement = _LOCK_JOB_BRIEFLY if connection.dialect.name == "postgresql" else _LOCK_JOB
    return _job_of(connection.execute(statement, {"of_task": task_id}).one_or_none(), task_id)


def locking(values: Mapping[str, Any]) -> Statement:
    """Return the statement that locks the job row of a task, if a message carries its token; its answer is `job`.

    It answers with the end that is decided, None if there is none. See `lock_job` for why it is one of its own.

    Args:
        values: Those of `conditions.token_of`.
    """
    return Statement(_LOCK_OF_TOKEN, values, name="job")


def _lock_for(dialect: str) -> Any:
    lock = select(job_table.c.end_status).where(
        _JOB_OF_TASK, job_table.c.token == bindparam("of_token", type_=bare_type(job_table.c.token))
    )
    lock = lock.with_for_update()
    return lock.add_columns(_LIMIT_WAIT) if kind_of(dialect).lock_timeout else lock


_LOCK_OF_TOKEN = PerDatabase({name: _lock_for(name) for name in KINDS})


def _job_of(row: Any, task_id: int) -> Job | None:
    if row is None:
        return None
    return Job(
        ref=TaskRef(task_id, row.token),
        open_ended=row.open_ended,
        parked=row.parked,
        had_work=row.had_work,
        end_status=row.end_status,
    )


def take_up(connection: Connection, task_id: int, *, finishes: bool | None = None) -> Job:
    """Give a task to the recorder, or tell it that new work comes from outside.

    Args:
        connection: In whose transaction to write.
        task_id: Id of the `ProcessingTask`.
        finishes: False makes the task open-ended, True makes it end when nothing is open, None changes nothing.

    Returns:
        The job row; locked until the transaction ends. An ended one is returned as it is.
    """
    job = lock_job(connection, task_id)
    if job is None:
        _insert_job(connection, task_id, finishes)
        job = lock_job(connection, task_id)
        assert job is not None  # noqa: S101  (inserted above, or by the one who was first)
    if job.end_status is not None:
        return job
    open_ended = job.open_ended if finishes is None else not finishes
    if job.parked or not job.had_work or open_ended != job.open_ended:
        connection.execute(
            update(job_table)
            .where(job_table.c.task_id == task_id)
            .values(parked=False, had_work=True, open_ended=open_ended)
        )
    return Job(ref=job.ref, open_ended=open_ended, parked=False, had_work=True, end_status=None)


def take_new(connection: Connection, task_id: int, *, since: datetime, finishes: bool | None = None) -> Job:
    """Give a task to the recorder whose row was inserted in this same transaction.

    Where the row of an older task was deleted behind our back, and its id was given out again (SQLite does so),
    what is left of that older task is removed.

    Args:
        connection: In whose transaction to write.
        task_id: Id of the new `ProcessingTask`.
        since: When it was made, aware UTC; older log entries are not its own.
        finishes: False makes the task open-ended.
    """
    token = _insert_job(connection, task_id, finishes)
    if token is None:
        for table in (execution_table, message_table, work_table, progress_table, hold_table, job_table):
            connection.execute(delete(table).where(table.c.task_id == task_id))
        for table in (log_table, own_progress_table):
            connection.execute(delete(table).where(table.c.task_id == task_id, table.c.created_at < since))
        token = _insert_job(connection, task_id, finishes)
    return Job(
        ref=TaskRef(task_id, str(token)), open_ended=finishes is False, parked=False, had_work=True, end_status=None
    )


def _insert_job(connection: Connection, task_id: int, finishes: bool | None) -> str | None:
    """Insert a job row; returns its token, or None if there is one already."""
    row = {
        "task_id": task_id,
        "token": new_token(),
        "open_ended": finishes is False,
        "parked": False,
        "had_work": True,
        "end_copied": False,
        "created_at": now(),
    }
    return str(row["token"]) if insert_absent(connection, job_table, [row]) else None


def add_task(connection: Connection, name: str) -> int:
    """Insert a `ProcessingTask` for a message that belongs to none yet; returns its id."""
    statement = insert(task_table).values(
        task_name=name,
        started_at=now(),
        parameters="",
        data={},
        multi_step=False,
        current_step=-1,
        progress_start=0,
        progress_target=100,
        progress_unit="%",
        task_log="",
    )
    task_id = connection.execute(statement).inserted_primary_key
    assert task_id is not None  # noqa: S101  (one row was inserted; tells the type checker)
    return int(task_id[0])


def has_task(connection: Connection, task_id: int) -> bool:
    """Tell whether there is a `ProcessingTask` with an id."""
    return connection.execute(select(task_table.c.id).where(task_table.c.id == task_id)).first() is not None
