"""What upkeep has to look at, and whose turn it is to look. Core statements on a connection that is handed in.

Nothing here changes the state of a task, and nothing commits.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, CursorResult, and_, case, literal, not_, or_, select, update

from .database import database_clock, limit_lock_wait, moment_of_clock
from .execution_keys import key_of, ref_of
from .facts import ExecutionKey, TaskRef
from .inserts import insert_absent
from .states import ExecutionState
from .tables import NAME_LENGTH, change_table, delivery_table, execution_table, hold_table, job_table, upkeep_table

#: Name of the row that says who does the chores.
_RESCUE: Final = "rescue"


def lead(connection: Connection, owner: str, moment: datetime, seconds: float) -> bool:
    """Take or renew the right to do the chores of upkeep.

    Args:
        connection: In whose transaction to write.
        owner: Who asks.
        moment: Now, by the database's clock.
        seconds: How long the right lasts.

    Returns:
        False while somebody else has it.

    Raises:
        sqlalchemy.exc.DBAPIError: If somebody came to a halt while taking it, so that it cannot be looked at.
    """
    limit_lock_wait(connection)
    until = moment + timedelta(seconds=seconds)
    if insert_absent(connection, upkeep_table, [{"name": _RESCUE, "owner": owner, "until": until}]):
        return True
    taken = connection.execute(
        update(upkeep_table)
        .where(
            upkeep_table.c.name == _RESCUE,
            or_(upkeep_table.c.owner == owner, upkeep_table.c.until < moment),
        )
        .values(owner=owner, until=until)
    )
    return taken.rowcount > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """What upkeep sees at first.

    Attributes:
        moment: Now, by the database's clock.
        owner: Who does the chores; None if nobody ever did.
        until: How long.
        idle: Nothing is open, nothing is to be shown, and nobody is to be told: there are no chores.
    """

    moment: datetime
    owner: str | None
    until: datetime | None
    idle: bool


def glance(connection: Connection) -> Glance:
    """Look whether there is anything for upkeep to do, in one statement that does not grow with the tables."""
    clock = database_clock(connection.dialect.name)
    chores = or_(
        select(literal(1)).where(execution_table.c.closed_at.is_(None)).exists(),
        select(literal(1)).select_from(hold_table).exists(),
        select(literal(1)).where(job_table.c.end_copied.is_(False), job_table.c.end_status.is_not(None)).exists(),
        select(literal(1)).select_from(change_table).exists(),
        select(literal(1)).where(delivery_table.c.due_at.is_not(None)).exists(),
    )
    ours = upkeep_table.c.name == _RESCUE
    row = connection.execute(
        select(
            clock,
            select(upkeep_table.c.owner).where(ours).scalar_subquery().label("owner"),
            select(upkeep_table.c.until).where(ours).scalar_subquery().label("until"),
            case((chores, 1), else_=0).label("busy"),
        )
    ).one()
    return Glance(moment=moment_of_clock(row[0]), owner=row.owner, until=row.until, idle=not row.busy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A running execution and the last sign of life of it."""

    ref: TaskRef
    key: ExecutionKey
    name: str
    heartbeat_at: datetime
    worker: str | None
    host: str | None
    pid: int | None
    pid_started: float | None
    acks_late: bool


def running(connection: Connection, *conditions: ColumnElement[bool]) -> list[Lease]:
    """Return running executions: all, or those that meet conditions on their rows."""
    rows = connection.execute(
        select(execution_table, job_table.c.token)
        .join(job_table, job_table.c.task_id == execution_table.c.task_id)
        .where(is_running(), execution_table.c.heartbeat_at.is_not(None), *conditions)
    )
    return [
        Lease(
            ref=ref_of(row),
            key=key_of(row),
            name=row.name,
            heartbeat_at=row.heartbeat_at,
            worker=row.worker,
            host=row.host,
            pid=row.pid,
            pid_started=row.pid_started,
            acks_late=bool(row.acks_late),
        )
        for row in rows
    ]


def running_in(connection: Connection, host: str, pid: int, pid_started: float, silent_since: datetime) -> list[Lease]:
    """Return executions that are said to run in a process and whose lease was not renewed since a moment.

    Args:
        connection: Where to read.
        host: Where the process runs, as `processes.this_host` says.
        pid: Its id.
        pid_started: When it started, as `processes.started_at` says.
        silent_since: The moment, aware UTC.
    """
    columns = execution_table.c
    return running(
        connection,
        columns.host == host[:NAME_LENGTH],
        columns.pid == pid,
        columns.pid_started == pid_started,
        columns.heartbeat_at < silent_since,
    )


def is_running() -> ColumnElement[bool]:
    """Return the condition for executions that run."""
    return and_(execution_table.c.closed_at.is_(None), execution_table.c.state == ExecutionState.RUNNING.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """An execution that was published to a known queue and that nobody has begun."""

    ref: TaskRef
    key: ExecutionKey
    name: str
    queue: str
    published_at: datetime
    eta: datetime | None
    deliveries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Overdue:
    """An execution that waits to begin beyond its deadline."""

    ref: TaskRef
    key: ExecutionKey
    name: str


#: What `Waiting` says.
_WAITING: Final[tuple[ColumnElement[Any], ...]] = tuple(
    execution_table.c[name]
    for name in ("task_id", "celery_id", "retries", "nesting", "name", "queue", "published_at", "eta", "deliveries")
)

#: Its message went back to the broker, and it is known where it can be looked for.
_went_back: Final = and_(
    execution_table.c.deliveries > 0, execution_table.c.queue.is_not(None), execution_table.c.published_at.is_not(None)
)


def overdue(connection: Connection, moment: datetime, limit: int = 100) -> list[Overdue]:
    """Return executions that wait to begin beyond their deadline, the longest overdue first.

    Those that `went_back` returns are not among them.
    """
    return [
        Overdue(ref=ref_of(row), key=key_of(row), name=row.name)
        for row in _past_deadline(connection, moment, not_(_went_back), limit)
    ]


def went_back(connection: Connection, moment: datetime, limit: int = 100) -> list[Waiting]:
    """Return executions that wait to begin beyond their deadline since their message went back to the broker.

    Behind a backlog it may come later than anybody can tell. Read by themselves, so that many of them, while the
    broker cannot be asked, do not keep those from their end that have nothing but their deadline.
    """
    return [_message(row) for row in _past_deadline(connection, moment, _went_back, limit)]


def _past_deadline(
    connection: Connection, moment: datetime, kind: ColumnElement[bool], limit: int
) -> CursorResult[Any]:
    return connection.execute(
        select(*_WAITING, job_table.c.token)
        .join(job_table, job_table.c.task_id == execution_table.c.task_id)
        .where(
            execution_table.c.closed_at.is_(None),
            execution_table.c.state == ExecutionState.QUEUED.value,
            execution_table.c.deadline_at < moment,
            kind,
        )
        .order_by(execution_table.c.deadline_at)
        .limit(limit)
    )


def _message(row: Any) -> Waiting:
    return Waiting(
        ref=ref_of(row),
        key=key_of(row),
        name=row.name,
        queue=row.queue,
        published_at=row.published_at,
        eta=row.eta,
        deliveries=row.deliveries,
    )


def waiting(connection: Connection, before: datetime, after: datetime | None, limit: int) -> list[Waiting]:
    """Return executions that nobody has begun, oldest publication first.

    Args:
        connection: Where to read.
        before: Only those published before this moment.
        after: Only those published at this moment or later; None for all.
        limit: How many at most.
    """
    published_at = execution_table.c.published_at
    conditions = [
        execution_table.c.closed_at.is_(None),
        published_at < before,
        execution_table.c.state == ExecutionState.QUEUED.value,
        execution_table.c.queue.is_not(None),
    ]
    if after is not None:
        conditions.append(published_at >= after)
    rows = connection.execute(
        select(*_WAITING, job_table.c.token)
        .join(job_table, job_table.c.task_id == execution_table.c.task_id)
        .where(*conditions)
        # The first one is NULL in all of them; PostgreSQL finds the order of the index only if it is named.
        .order_by(execution_table.c.closed_at, published_at)
        .limit(limit)
    )
    return [_message(row) for row in rows]


@dataclass(frozen=True, slots=True)
class Hold:
    """A submission under way and the last sign of life of it."""

    id: str
    task_id: int
    heartbeat_at: datetime


def holds(connection: Connection) -> list[Hold]:
    """Return all submissions under way."""
    rows = connection.execute(select(hold_table.c.id, hold_table.c.task_id, hold_table.c.heartbeat_at))
    return [Hold(row.id, row.task_id, row.heartbeat_at) for row in rows]


def uncopied(connection: Connection, limit: int = 100) -> list[int]:
    """Return ids of tasks whose decided end the `ProcessingTask` row does not show yet."""
    rows = connection.execute(
        select(job_table.c.task_id)
        .where(job_table.c.end_copied.is_(False), job_table.c.end_status.is_not(None))
        .limit(limit)
    )
    return [row.task_id for row in rows]
