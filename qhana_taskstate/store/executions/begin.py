"""Records that an execution begins, or finds that it runs or has ended already."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, func, null, update

from ...clock import now
from ...database.inserts import insert_absent
from ...database.pipeline import Batch
from ...database.tables.base import NAME_LENGTH
from ...database.tables.executions import execution_table
from ...database.tables.jobs import job_table
from ...database.tables.types import bare_type
from ...facts import ExecutionKey, TaskRef
from ...states import ExecutionState
from ...texts import clean
from ..task.jobs import find_job
from .celery_ids import column_id
from .conditions import THIS, is_of_token
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


_is_not_running = execution_table.c.state != ExecutionState.RUNNING.value


#: Begins one that waits to begin.
_BEGIN_ANEW = _BEGIN.where(_is_not_running)


#: Does so if the token is the task's, and says in the same round trip whether the task has ended (PostgreSQL).
_BEGIN_OF_TOKEN = _BEGIN_ANEW.where(is_of_token).returning(
    job_table.c.end_status,
    # The commit does not wait for the disk: what a crash of the database loses, the end of the execution writes again.
    func.set_config("synchronous_commit", "off", True),
)


def begin(
    connection: Connection,
    ref: TaskRef,
    key: ExecutionKey,
    *,
    name: str,
    runner: Runner,
    parent_id: str | None = None,
    acks_late: bool = False,
    max_retries: int | None = None,
    moment: datetime | None = None,
    runs_still: Callable[[Connection, Lease], bool] | None = None,
) -> Begun:
    """Record that an execution runs; it is inserted if its publication is not recorded yet, or never was.

    Args:
        connection: In whose transaction to write.
        ref: The task, as the message says.
        key: Key of the execution.
        name: Name of the Celery task.
        runner: Who runs it.
        parent_id: Celery id of the execution that published it.
        acks_late: Whether the broker keeps its message until it ended.
        max_retries: Celery's limit, None for no limit.
        moment: When it began, aware UTC; None is now.
        runs_still: Tells whether the process of a lease still runs this very execution; it then stays with that one.
            None lets it be taken over.

    Returns:
        What was found. A closed execution is not opened again.
    """
    moment = moment or now()
    facts = _values_of_begin(runner, acks_late, max_retries, moment)
    job = find_job(connection, ref.task_id)
    if job is None or job.ref != ref:
        return Begun(known=False)
    ended = job.end_status is not None
    values = {**named(ref.task_id, key), **facts, "moment": moment}
    if connection.execute(_BEGIN_ANEW, values).rowcount:
        return Begun(known=True, task_ended=ended)
    if runs_still is not None and any(
        runs_still(connection, lease) for lease in running(connection, is_of_key(execution_table, ref.task_id, key))
    ):
        return Begun(known=True, task_ended=ended, running=True)
    inserted = insert_absent(
        connection,
        execution_table,
        [
            {
                **key_columns(ref.task_id, key),
                "name": name[:NAME_LENGTH],
                "parent_id": parent_id and column_id(parent_id),
                "started_at": moment,
                "deliveries": 1,
                "losses": 0,
                **facts,
            }
        ],
    )
    if inserted or connection.execute(_BEGIN, values).rowcount:
        # Where the insert found the row, its registration was committed a moment ago, after the first statement.
        return Begun(known=True, task_ended=ended)
    connection.execute(
        update(execution_table)
        .where(is_of_key(execution_table, ref.task_id, key))
        .values(deliveries=execution_table.c.deliveries + 1)
    )
    return Begun(known=True, task_ended=ended, closed=True)


def _values_of_begin(runner: Runner, acks_late: bool, max_retries: int | None, moment: datetime) -> dict[str, Any]:
    return {
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


def begin_usually(
    batch: Batch,
    ref: TaskRef,
    key: ExecutionKey,
    *,
    runner: Runner,
    acks_late: bool,
    max_retries: int | None,
    moment: datetime,
) -> Begun | None:
    """Do what `begin` does, in one round trip, for an execution that waits to begin, as most do. Commits.

    Returns:
        None if it is another case; nothing was written then.
    """
    facts = _values_of_begin(runner, acks_late, max_retries, moment)
    rows = batch.run(_BEGIN_OF_TOKEN, {**named(ref.task_id, key), **facts, "moment": moment, "of_token": ref.token})
    return Begun(known=True, task_ended=rows[0][0] is not None) if rows else None
