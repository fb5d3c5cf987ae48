"""Records that an execution begins, or finds that it runs or has ended already."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection, String, bindparam, func, literal, null, select, update

from ...clock import now
from ...database.dialects import KINDS
from ...database.inserts import insert_absent
from ...database.scripts.prepared import PerDatabase
from ...database.scripts.statement import Answers, Statement
from ...database.tables.base import NAME_LENGTH
from ...database.tables.executions import execution_table
from ...database.tables.jobs import job_table
from ...database.tables.types import bare_type
from ...facts import ExecutionKey, TaskRef
from ...liveness import advisory_lock
from ...states import ExecutionState
from ...texts import clean
from ..script import Script
from .celery_ids import column_id
from .conditions import IS_JOB, IS_OURS, THIS
from .heartbeats import Lease, running
from .keys import is_of_key, key_columns, named
from .registration import limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """The process that runs an execution.

    Attributes:
        worker: Host name of the Celery worker.
        host: Machine and process namespace in which the process id means something.
        pid: Its process id.
        pid_started: When that process started, seconds since the epoch.
    """

    worker: str | None
    host: str
    pid: int
    pid_started: float | None

    def __post_init__(self) -> None:
        """Keep of the names what the columns hold."""
        object.__setattr__(self, "worker", self.worker and clean(self.worker)[:NAME_LENGTH])
        object.__setattr__(self, "host", clean(self.host)[:NAME_LENGTH])


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """What was found when an execution began.

    Attributes:
        known: False if the token belongs to no task, so that nothing was written.
        task_ended: The task had already ended.
        closed: This very execution had already ended (its message was delivered again).
        running: This very execution runs in a process that is alive (its message was delivered again), so that nothing
            was written.
    """

    known: bool
    task_ended: bool = False
    closed: bool = False
    running: bool = False


#: Begins an execution that is not closed, whether or not it runs already.
_BEGIN = (
    update(execution_table)
    .where(THIS)
    .values(
        {
            execution_table.c[name]: bindparam(name, type_=bare_type(execution_table.c[name]))
            for name in ("state", "heartbeat_at", "worker", "host", "pid", "pid_started", "acks_late", "max_retries")
        }
        | {
            execution_table.c.started_at: func.coalesce(
                execution_table.c.started_at, bindparam("moment", type_=bare_type(execution_table.c.started_at))
            ),
            execution_table.c.deadline_at: null(),
            execution_table.c.deliveries: execution_table.c.deliveries + 1,
        }
    )
)


_is_not_running = execution_table.c.state != literal(ExecutionState.RUNNING.value, String())


#: Begins one that waits to begin.
_BEGIN_ANEW = _BEGIN.where(_is_not_running)


#: Does so if the token is the task's.
_BEGIN_OF_TOKEN = _BEGIN_ANEW.where(IS_OURS)


#: Notes the trace of one that runs, if it has one.
_NOTE_TRACE = (
    update(execution_table)
    .where(THIS, IS_OURS)
    .values(trace_id=func.coalesce(execution_table.c.trace_id, bindparam("trace", type_=String())))
)


def _ask_for_end(dialect: str) -> Any:
    query = select(job_table.c.end_status).where(IS_JOB)
    if dialect == "postgresql":
        # The commit does not wait for the disk: what a crash of the database loses, the end of the execution writes
        # again.
        return query.add_columns(func.set_config("synchronous_commit", "off", True))
    return query


#: Asks for the end of the task, None if it goes on.
_ASK_FOR_END = PerDatabase({name: _ask_for_end(name) for name in KINDS})


def begin_script(
    ref: TaskRef,
    key: ExecutionKey,
    *,
    name: str,
    runner: Runner,
    parent_id: str | None = None,
    acks_late: bool = False,
    max_retries: int | None = None,
    trace_id: str | None = None,
    moment: datetime | None = None,
    running_here: Container[tuple[TaskRef, ExecutionKey]] | None = None,
) -> Script[Begun]:
    """Return what records that an execution runs; it is inserted if its publication is not recorded yet, or never was.

    A closed execution is not opened again.

    Args:
        ref: The task, as the message says.
        key: Key of the execution.
        name: Name of the Celery task.
        runner: Who runs it.
        parent_id: Celery id of the execution that published it.
        acks_late: Whether the broker keeps its message until it ended.
        max_retries: Celery's limit, None for no limit.
        trace_id: The trace that it belongs to, None without one.
        moment: When it began, aware UTC; None is now.
        running_here: What runs in the runner's process, besides this run. An execution whose lease says that it runs
            there and does, or in another process that lives, stays with that one. None lets it be taken over.
    """
    moment = moment or now()
    facts = {
        "state": ExecutionState.RUNNING.value,
        "heartbeat_at": moment,
        "worker": runner.worker,
        "host": runner.host,
        "pid": runner.pid,
        "pid_started": runner.pid_started,
        "acks_late": acks_late,
        # Beyond what a column holds (`sys.maxsize`, infinity) it says "for ever", as None does.
        "max_retries": None if max_retries is None else limit(max_retries),
    }
    values = {**named(ref, key), **facts, "moment": moment}
    row = {"name": name[:NAME_LENGTH], "parent_id": parent_id, "started_at": moment, **facts}
    statements = [Statement(_BEGIN_OF_TOKEN, values, name="begin"), Statement(_ASK_FOR_END, values, name="job")]
    if trace_id:
        statements.append(Statement(_NOTE_TRACE, values | {"trace": trace_id}))
        row["trace_id"] = trace_id
    return Script(
        statements=statements,
        conclude=_begun,
        rest=partial(_begin_otherwise, ref, key, values, row, runner, running_here),
        at_once=True,
    )


def begin(connection: Connection, ref: TaskRef, key: ExecutionKey, **known: Any) -> Begun:
    """Do what `begin_script` says, in the transaction of a connection; arguments as there."""
    return begin_script(ref, key, **known)(connection)


def _begun(answers: Answers) -> Begun | None:
    """Read the answers; None if it does not simply wait to begin."""
    jobs = answers["job"].rows
    if not jobs:
        return Begun(known=False)
    return Begun(known=True, task_ended=jobs[0][0] is not None) if answers["begin"].count else None


def _begin_otherwise(
    ref: TaskRef,
    key: ExecutionKey,
    values: dict[str, Any],
    row: dict[str, Any],
    runner: Runner,
    running_here: Container[tuple[TaskRef, ExecutionKey]] | None,
    connection: Connection,
    answers: Answers,
) -> Begun:
    """Begin an execution that nobody has recorded yet, or that runs already, or has ended."""
    ended = answers["job"].rows[0][0] is not None
    if running_here is not None and any(
        _runs_still(connection, lease, runner, running_here)
        for lease in running(connection, is_of_key(execution_table, ref.task_id, key))
    ):
        return Begun(known=True, task_ended=ended, running=True)
    parent_id: str | None = row["parent_id"]
    row = {
        **key_columns(ref.task_id, key),
        **row,
        "parent_id": parent_id and column_id(parent_id),
        "deliveries": 1,
        "losses": 0,
    }
    if insert_absent(connection, execution_table, [row]) or connection.execute(_BEGIN, values).rowcount:
        # Where the insert found the row, its registration was committed a moment ago, after the first statement.
        return Begun(known=True, task_ended=ended)
    connection.execute(
        update(execution_table)
        .where(is_of_key(execution_table, ref.task_id, key))
        .values(deliveries=execution_table.c.deliveries + 1)
    )
    return Begun(known=True, task_ended=ended, closed=True)


def _runs_still(
    connection: Connection, lease: Lease, runner: Runner, running_here: Container[tuple[TaskRef, ExecutionKey]]
) -> bool:
    """Tell whether the execution of a lease goes on, for certain, in the process that the lease names."""
    if (lease.host, lease.pid) == (runner.host, runner.pid):
        return (lease.ref, lease.key) in running_here
    return advisory_lock.lives(connection, lease.host, lease.pid, lease.pid_started)
