"""The only writer of task state. Core statements on a connection that is handed in.

Nothing here commits, except the two short ways to begin and to end (`begin_usually`, `close_usually`).

Lock order: job row, executions by key, `ProcessingTask` last. Whoever holds a job row never waits for a
`ProcessingTask` row: a plugin may have changed that in a transaction that stays open for hours.
"""

from __future__ import annotations

import dataclasses
import functools
import secrets
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    insert,
    literal,
    not_,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects.mysql import insert as mysql_insert
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from . import outbox, tasklog
from .canvasprogress import MOST_OF_ONE, Canvas, canvas_progress, is_of_canvas, is_same
from .celery_ids import column_id
from .chores import Hold, Lease, Waiting, is_running, running
from .clock import after, as_utc, now
from .columntypes import LARGEST_INTEGER, nearest_count
from .database import LOCK_SECONDS, limit_lock_wait
from .ending import DECIDE, SHOW_SUCCESS, copy_end
from .execution_keys import IS_NAMED, is_of_key, key_columns, named
from .facts import ExecutionKey, KeptMessage, Progress, Publication, TaskRef
from .inserts import insert_absent
from .roundtrips import Batch
from .rows import is_open_step
from .runner_tables import step_table, subscription_table, task_table
from .states import CHORD_UNLOCK, FAILED_STATES, ExecutionState, TaskEvent, TaskStatus
from .tables import NAME_LENGTH, RECORDS, execution_table, hold_table, job_table, log_table, message_table
from .texts import LONGEST_TEXT, cut

#: How many characters of a traceback are kept.
_LONGEST_TRACEBACK: Final = 16 * LONGEST_TEXT

#: Seconds that a worker has to say that a message expired, the difference of two clocks included.
_AFTER_EXPIRY_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What the job row of a task said when it was read."""

    ref: TaskRef
    open_ended: bool
    parked: bool
    had_work: bool
    end_status: str | None


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """What was found when an execution began.

    Attributes:
        known: False if the token belongs to no task, so that nothing was written.
        task_ended: The task had already ended.
        closed: This very execution had already ended (its message was delivered again).
        running: This very execution runs in a process that lives (its message was delivered again), so that nothing
            was written.
    """

    known: bool
    task_ended: bool = False
    closed: bool = False
    running: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an execution failed, as people read it."""

    type: str
    message: str
    traceback: str | None = None

    @property
    def summary(self) -> str:
        """Type and message in one line of text."""
        return f"{self.type}: {self.message}" if self.message else self.type


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a write led to.

    Attributes:
        changed: Whether it changed anything.
        ended: Status with which the task ended by it, None if it did not.
        members_open: Whether other executions of the task were still open.
        shown: Whether the `ProcessingTask` row shows it; False if a plugin holds that row.
    """

    changed: bool = False
    ended: str | None = None
    members_open: bool = False
    shown: bool = True


# The statements of every execution are built once: building costs several times what sending them does (measured:
# 80 to 160 µs against 15 to 60 µs).
_JOB_OF_TASK = job_table.c.task_id == bindparam("of_task")
_THIS = and_(IS_NAMED, execution_table.c.closed_at.is_(None))
_FIND_JOB = select(
    job_table.c.token, job_table.c.open_ended, job_table.c.parked, job_table.c.had_work, job_table.c.end_status
).where(_JOB_OF_TASK)
_LOCK_JOB = _FIND_JOB.with_for_update()
_LOCK_MILLISECONDS = str(LOCK_SECONDS * 1000)
# PostgreSQL evaluates the select list before it waits for the row (seen on 16), so that no statement of its own is
# needed to limit the wait.
_LOCK_JOB_BRIEFLY = _LOCK_JOB.add_columns(func.set_config("lock_timeout", _LOCK_MILLISECONDS, True))
_known_since = func.coalesce(execution_table.c.published_at, execution_table.c.started_at, execution_table.c.closed_at)
_BEGIN = (
    update(execution_table)
    .where(_THIS)
    .values(
        {
            execution_table.c[name]: bindparam(name, type_=execution_table.c[name].type)
            for name in ("state", "heartbeat_at", "worker", "host", "pid", "pid_started", "acks_late", "max_retries")
        }
        | {
            execution_table.c.started_at: func.coalesce(
                execution_table.c.started_at, bindparam("moment", type_=execution_table.c.started_at.type)
            ),
            execution_table.c.deadline_at: None,
            execution_table.c.deliveries: execution_table.c.deliveries + 1,
        }
    )
)
_is_not_running = execution_table.c.state != ExecutionState.RUNNING.value
_BEGIN_ANEW = _BEGIN.where(_is_not_running)
_is_of_token = and_(job_table.c.task_id == execution_table.c.task_id, job_table.c.token == bindparam("of_token"))
_BEGIN_OF_TOKEN = _BEGIN_ANEW.where(_is_of_token).returning(
    job_table.c.end_status,
    # That it runs is worth no wait for the disk: after a crash of the database its end says so again.
    func.set_config("synchronous_commit", "off", True),
)
_CLOSE = (
    update(execution_table)
    .where(_THIS)
    .values(
        {
            execution_table.c[name]: bindparam(name, type_=execution_table.c[name].type)
            for name in ("state", "closed_at", "error_type", "error", "traceback")
        }
    )
)


def _look_at(others: ColumnElement[bool]) -> Any:
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


_LOOK = _look_at(true())
_SEVERAL = 2
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
_is_subscribed = exists().where(subscription_table.c.task_id == bindparam("of_task"))
_SHOWN = select(
    task_table.c.id,
    task_table.c.finished_at,
    # Asked along the way, so that a task without subscribers pays nothing.
    _is_subscribed.label("subscribed"),
    task_table.c.progress_value,
    task_table.c.progress_start,
    task_table.c.progress_target,
    task_table.c.progress_unit,
).where(task_table.c.id == bindparam("of_task"))
# A key share, so that a plugin's uncommitted output, which refers to the row, is no reason to wait (PostgreSQL).
_LOCK_TASK = _SHOWN.with_for_update(key_share=True)
_LOCK_TASK_IF_FREE = _SHOWN.with_for_update(skip_locked=True, key_share=True)
# The usual end in two round trips (PostgreSQL). A look does not see what a change in its own statement does, and so
# leaves that execution out.
_closed = _CLOSE.where(_is_of_token).returning(literal(1)).cte("closed")
_CLOSE_AND_LOOK = _look_at(not_(_THIS)).add_columns(
    case((_is_subscribed, 1), else_=0).label("subscribed"),
    select(func.count()).select_from(_closed).scalar_subquery().label("changed"),
)
_free_row = _LOCK_TASK_IF_FREE.cte("free_row")
_is_free = select(literal(1)).select_from(_free_row).exists()
_decided = DECIDE.values({job_table.c.end_copied: _is_free}).returning(literal(1)).cte("decided")
_ended = SHOW_SUCCESS.where(task_table.c.id == _free_row.c.id).returning(literal(1)).cte("ended")
_END_WELL = select(case((_is_free, 1), else_=0).label("shown")).add_cte(_decided, _ended)


def new_token() -> str:
    """Return a token for a job row: 16 random hexadecimal digits."""
    return secrets.token_hex(8)


def find_job(connection: Connection, task_id: int) -> Job | None:
    """Read the job row of a task without locking it; None where nobody gave the task to us."""
    return _job(connection, task_id, lock=False)


def lock_job(connection: Connection, task_id: int) -> Job | None:
    """Lock and read the job row of a task, in a statement of its own.

    What is looked for afterwards sees all that was committed before the lock was had; looking and locking in one
    statement loses the end when two executions close at the same instant (PostgreSQL, READ COMMITTED).
    """
    return _job(connection, task_id, lock=True)


def _job(connection: Connection, task_id: int, *, lock: bool) -> Job | None:
    statement = _FIND_JOB
    if lock:
        statement = _LOCK_JOB_BRIEFLY if connection.dialect.name == "postgresql" else _LOCK_JOB
    row = connection.execute(statement, {"of_task": task_id}).one_or_none()
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
    """Give a task to the tracker, or tell it that new work comes from outside.

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
    """Give a task to the tracker whose row was inserted in this same transaction.

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
        for table in (execution_table, message_table, hold_table, job_table):
            connection.execute(delete(table).where(table.c.task_id == task_id))
        connection.execute(delete(log_table).where(log_table.c.task_id == task_id, log_table.c.created_at < since))
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


def register(
    connection: Connection,
    task_id: int,
    publications: Collection[Publication],
    *,
    deadline_seconds: float,
) -> None:
    """Record published messages as QUEUED executions; those that are known already only learn what they lack.

    Args:
        connection: In whose transaction to write.
        task_id: Id of their task.
        publications: The messages.
        deadline_seconds: How long after its publication or eta a message that nobody has begun counts as lost; one
            that expires before that counts as lost soon after its expiry.
    """
    rows = [
        {
            **key_columns(task_id, publication.key),
            "name": publication.name[:NAME_LENGTH],
            "state": ExecutionState.QUEUED.value,
            "parent_id": publication.parent_id and column_id(publication.parent_id),
            # A message whose id is not kept whole cannot be found in a queue.
            "queue": publication.queue and publication.queue[:NAME_LENGTH] if _is_whole(publication.key) else None,
            "published_at": publication.published_at,
            "eta": publication.eta,
            "deliveries": 0,
            "losses": 0,
            "deadline_at": _deadline(publication, deadline_seconds),
        }
        for publication in publications
    ]
    if rows:
        # By key, the order in which everybody locks executions.
        rows.sort(key=lambda row: (str(row["celery_id"]), row["retries"], row["nesting"]))
        connection.execute(_registration(connection.dialect.name), rows if len(rows) > 1 else rows[0])
    for publication in publications:
        if publication.message is not None:
            keep_message(connection, task_id, publication.key, publication.message)


def _is_whole(key: ExecutionKey) -> bool:
    return column_id(key.celery_id) == key.celery_id


def keep_message(connection: Connection, task_id: int, key: ExecutionKey, message: KeptMessage) -> None:
    """Keep a message, so that it can be sent again if the broker loses it, until its execution is closed."""
    row = {
        **key_columns(task_id, key),
        **dataclasses.asdict(message),
        "resends": 0,
        "created_at": now(),
    }
    insert_absent(connection, message_table, [row])


def is_registered(connection: Connection, task_id: int, key: ExecutionKey) -> bool:
    """Tell whether a task has this execution."""
    return connection.execute(select(literal(1)).where(is_of_key(execution_table, task_id, key))).first() is not None


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
    lives: Callable[[Connection, Lease], bool] | None = None,
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
        lives: Tells whether the process lives that runs this very execution already; it then stays with that one.
            None lets it be taken over.

    Returns:
        What was found. A closed execution is not opened again.
    """
    moment = moment or now()
    facts = _facts_of_begin(runner, acks_late, max_retries, moment)
    job = find_job(connection, ref.task_id)
    if job is None or job.ref != ref:
        return Begun(known=False)
    ended = job.end_status is not None
    values = {**named(ref.task_id, key), **facts, "moment": moment}
    if connection.execute(_BEGIN_ANEW, values).rowcount:
        return Begun(known=True, task_ended=ended)
    if lives is not None and any(
        lives(connection, lease) for lease in running(connection, is_of_key(execution_table, ref.task_id, key))
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


def _facts_of_begin(runner: Runner, acks_late: bool, max_retries: int | None, moment: datetime) -> dict[str, Any]:
    return {
        "state": ExecutionState.RUNNING.value,
        "heartbeat_at": moment,
        "worker": runner.worker and runner.worker[:NAME_LENGTH],
        "host": runner.host[:NAME_LENGTH],
        "pid": runner.pid,
        "pid_started": runner.pid_started,
        "acks_late": acks_late,
        # Beyond what a column holds (`sys.maxsize`, infinity) it says "for ever", as None does.
        "max_retries": _limit(max_retries),
    }


def _limit(max_retries: object) -> int | None:
    count = nearest_count(max_retries)
    return None if count is None or count >= LARGEST_INTEGER else count


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
    facts = _facts_of_begin(runner, acks_late, max_retries, moment)
    rows = batch.run(_BEGIN_OF_TOKEN, {**named(ref.task_id, key), **facts, "moment": moment, "of_token": ref.token})
    return Begun(known=True, task_ended=rows[0][0] is not None) if rows else None


def close_usually(batch: Batch, ref: TaskRef, closing: Closing) -> Outcome | None:
    """Do what `close` does, in two round trips, for an end that `is_usual`. Commits.

    Returns:
        None if the task asks for more than that, as one with subscribers does; what was written is rolled back then,
        and `close` is to be used.
    """
    moment = now()
    values = {
        **named(ref.task_id, closing.key),
        **_facts_of_close(closing, moment),
        "of_token": ref.token,
        "end_status": TaskStatus.SUCCESS.value,
        "ended_at": moment,
        "task_status": TaskStatus.SUCCESS.value,
        "finished_at": moment,
    }
    # Two statements, for two snapshots: the look sees all that was committed before the lock was had.
    jobs, looks = batch.send(_LOCK_JOB_BRIEFLY, _CLOSE_AND_LOOK, values=values)
    some_open, waiting, members, subscribed, changed = looks[0]
    if not changed:
        return None
    _, open_ended, parked, had_work, end_status, _ = jobs[0]
    if end_status is not None or some_open:
        batch.send(values=values, commit=True)
        return Outcome(changed=True, members_open=bool(some_open) and end_status is None)
    shows_members = members >= _SEVERAL and closing.counts_members
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
    lines = [line for line in closing.lines]
    if closing.progress is not None:
        _set_progress(connection, ref.task_id, closing.key, closing.progress)
    failed = closing.state in FAILED_STATES
    changed = _close(connection, ref.task_id, closing)
    if changed and failed and job.end_status is None:
        lines.append(_failure_entry(closing))
    if lines:
        tasklog.append(connection, ref.task_id, lines, column=False)
    ended, look = None, _NOTHING_OPEN
    if changed and job.end_status is None:
        # After a RETRY too: the next attempt often ends before the close of the one that published it.
        look = _NOTHING_OPEN if failed else _look(connection, job)
        ended = TaskStatus.ERROR if failed else look.ended
    progress: Progress | Canvas | None = closing.progress
    if closing.counts_members and (progress is not None or (ended == TaskStatus.SUCCESS and look.several)):
        canvas = _canvas(connection, ref.task_id, to_come=closing.to_come, ended=ended == TaskStatus.SUCCESS)
        progress = canvas if canvas.is_several else progress
    shown = _finish(
        connection,
        ref.task_id,
        ended,
        log=bool(lines),
        progress=progress,
        # A look that finds the end has found no open step.
        has_no_step=ended == TaskStatus.SUCCESS,
    )
    return Outcome(changed=changed, ended=ended, members_open=look.open, shown=shown)


def _close(connection: Connection, task_id: int, closing: Closing) -> bool:
    facts = _facts_of_close(closing, now())
    key = closing.key
    if closing.kept:
        connection.execute(delete(message_table).where(is_of_key(message_table, task_id, key)))
    if connection.execute(_CLOSE, {**named(task_id, key), **facts}).rowcount:
        return True
    row = {
        **key_columns(task_id, key),
        "name": closing.name[:NAME_LENGTH],
        "deliveries": 0,
        "losses": 0,
        **facts,
    }
    return insert_absent(connection, execution_table, [row]) > 0


def _facts_of_close(closing: Closing, moment: datetime) -> dict[str, Any]:
    failure = closing.failure
    return {
        "state": closing.state.value,
        "closed_at": moment,
        "error_type": failure and failure.type[:NAME_LENGTH],
        "error": failure and cut(failure.message),
        "traceback": failure and failure.traceback and cut(failure.traceback, _LONGEST_TRACEBACK),
    }


def _failure_entry(closing: Closing) -> str:
    told = closing.failure.summary if closing.failure else closing.state.value.lower()
    return cut(f"{closing.name} failed: {told}")


def _deadline(publication: Publication, seconds: float) -> datetime:
    deadline = after(later(publication.published_at, publication.eta), seconds)
    if publication.expires is None:
        return deadline
    # A worker that gets an expired message says so; but RabbitMQ drops it in the queue and tells nobody (celery 5.7).
    return min(deadline, after(publication.expires, _AFTER_EXPIRY_SECONDS))


def later(published_at: datetime, eta: datetime | None) -> datetime:
    """Return when a message that was published, perhaps with an eta, may begin."""
    return max(published_at, as_utc(eta)) if eta is not None else published_at


def hand_back(
    connection: Connection,
    ref: TaskRef,
    key: ExecutionKey,
    *,
    deadline: datetime,
    lost: bool,
    heartbeat_at: datetime | None = None,
    process: tuple[str, int] | None = None,
) -> int | None:
    """Record that the broker will deliver a message again, so that its execution waits once more.

    Args:
        connection: In whose transaction to write.
        ref: The task.
        key: Key of the execution.
        deadline: When it counts as lost if nobody has begun it by then; aware UTC.
        lost: Whether it lost its worker, rather than asking to be delivered again.
        heartbeat_at: Only if its lease still is this one.
        process: Only if it runs in this process: host and process id. Another one may have begun it meanwhile.

    Returns:
        How often it has lost its worker by now; None if it is not running (any more), or was renewed.
    """
    limit_lock_wait(connection)
    condition = [is_of_key(execution_table, ref.task_id, key), is_running()]
    if heartbeat_at is not None:
        condition.append(execution_table.c.heartbeat_at == heartbeat_at)
    if process is not None:
        host, pid = process
        condition += [execution_table.c.host == host[:NAME_LENGTH], execution_table.c.pid == pid]
    handed_back = connection.execute(
        update(execution_table)
        .where(*condition)
        .values(
            state=ExecutionState.QUEUED.value,
            deadline_at=deadline,
            heartbeat_at=None,
            losses=execution_table.c.losses + (1 if lost else 0),
        )
    )
    if not handed_back.rowcount:
        return None
    losses = connection.execute(
        select(execution_table.c.losses).where(is_of_key(execution_table, ref.task_id, key))
    ).scalar_one()
    return int(losses)


def settle_lost(connection: Connection, lease: Lease, failure: Failure) -> Outcome:
    """End an execution as LOST, if its lease is still the one that ran out."""
    job = lock_job(connection, lease.ref.task_id)
    if job is None or job.ref != lease.ref:
        return Outcome()
    still = connection.execute(
        select(literal(1)).where(
            is_of_key(execution_table, lease.ref.task_id, lease.key),
            is_running(),
            execution_table.c.heartbeat_at == lease.heartbeat_at,
        )
    ).first()
    if still is None:
        return Outcome()
    closing = Closing(key=lease.key, name=lease.name, state=ExecutionState.LOST, failure=failure)
    return close(connection, lease.ref, closing)


def settle_missing(
    connection: Connection, missing: Waiting, failure: Failure, *, most_resends: int, deadline_seconds: float
) -> tuple[Outcome, KeptMessage | None]:
    """Let a message that is nowhere be sent again, or end its execution as LOST.

    Nothing happens if it was begun, or was sent again, since it was seen to wait.

    Args:
        connection: In whose transaction to write.
        missing: The execution as it was when its message was looked for.
        failure: Why it ends, if it does.
        most_resends: How often one message is sent again at most.
        deadline_seconds: How long after it was sent again it counts as lost.

    Returns:
        What it led to; and the message, to be sent after the commit, if it was kept and its task has not ended.
    """
    ref, key = missing.ref, missing.key
    job = lock_job(connection, ref.task_id)
    if job is None or job.ref != ref or not _still_waits(connection, missing):
        return Outcome(), None
    kept = connection.execute(select(message_table).where(is_of_key(message_table, ref.task_id, key))).one_or_none()
    if kept is not None and kept.resends < most_resends and job.end_status is None:
        moment = now()
        deadline = after(later(moment, missing.eta), deadline_seconds)
        connection.execute(
            update(message_table)
            .where(is_of_key(message_table, ref.task_id, key))
            .values(resends=message_table.c.resends + 1)
        )
        connection.execute(
            update(execution_table)
            .where(is_of_key(execution_table, ref.task_id, key))
            .values(published_at=moment, deadline_at=deadline)
        )
        names = [name.name for name in dataclasses.fields(KeptMessage)]
        return Outcome(changed=True), KeptMessage(**{name: getattr(kept, name) for name in names})
    closing = Closing(key=key, name=missing.name, state=ExecutionState.LOST, failure=failure)
    return close(connection, ref, closing), None


def _still_waits(connection: Connection, missing: Waiting) -> bool:
    return connection.execute(select(literal(1)).where(*_waits(missing))).first() is not None


def _waits(waiting: Waiting) -> list[ColumnElement[bool]]:
    """Return the conditions for an execution that waits as it did when it was read."""
    return [
        is_of_key(execution_table, waiting.ref.task_id, waiting.key),
        execution_table.c.closed_at.is_(None),
        execution_table.c.state == ExecutionState.QUEUED.value,
        execution_table.c.deliveries == waiting.deliveries,
        execution_table.c.published_at == waiting.published_at,
    ]


def postpone(connection: Connection, waiting: Iterable[Waiting], deadline: datetime) -> None:
    """Give messages that went back to the broker, and are still there, a later deadline; aware UTC."""
    for one in sorted(waiting, key=lambda one: (one.ref.task_id, *dataclasses.astuple(one.key))):
        connection.execute(update(execution_table).where(*_waits(one)).values(deadline_at=deadline))


def renew_hold(connection: Connection, hold_id: str) -> None:
    """Renew the lease of a submission."""
    connection.execute(update(hold_table).where(hold_table.c.id == hold_id).values(heartbeat_at=now()))


def settle_hold(connection: Connection, hold: Hold) -> Outcome:
    """End the task of a submission whose client died, if its lease is still the one that ran out."""
    job = lock_job(connection, hold.task_id)
    removed = connection.execute(
        delete(hold_table).where(hold_table.c.id == hold.id, hold_table.c.heartbeat_at == hold.heartbeat_at)
    )
    if job is None or not removed.rowcount or job.end_status is not None:
        return Outcome()
    seen = connection.execute(
        select(func.count()).select_from(execution_table).where(execution_table.c.task_id == hold.task_id)
    ).scalar_one()
    entry = f"the client died while it submitted the work; {seen} of its messages were seen"
    return end(connection, hold.task_id, TaskStatus.ERROR, entry=entry)


def hold(connection: Connection, task_id: int) -> str:
    """Keep a task open until `release`; returns the id of the hold."""
    hold_id = new_token()
    moment = now()
    connection.execute(
        insert(hold_table).values(id=hold_id, task_id=task_id, created_at=moment, heartbeat_at=moment, published=0)
    )
    return hold_id


def release(
    connection: Connection,
    ref: TaskRef,
    hold_id: str,
    publications: Sequence[Publication],
    *,
    deadline_seconds: float,
) -> Outcome:
    """End a hold: register what was published meanwhile, and look whether the task has ended.

    An empty submission (an empty group) so ends its task at once.
    """
    job = lock_job(connection, ref.task_id)
    register(connection, ref.task_id, publications, deadline_seconds=deadline_seconds)
    connection.execute(delete(hold_table).where(hold_table.c.id == hold_id))
    if job is None or job.ref != ref or job.end_status is not None:
        return Outcome()
    ended = _look(connection, job).ended
    return Outcome(changed=True, ended=ended, shown=_finish(connection, ref.task_id, ended))


def withdraw(connection: Connection, ref: TaskRef, *, key: ExecutionKey | None, hold_id: str | None) -> Outcome:
    """End a task as ERROR if its last start was committed although that failed; its messages were not sent.

    Args:
        connection: In whose transaction to write.
        ref: The task.
        key: Key of the message that the start registered, if it was one.
        hold_id: The hold of the start, if it had one.
    """
    job = find_job(connection, ref.task_id)
    if job is None or job.ref != ref:
        return Outcome()
    held = select(hold_table.c.id).where(hold_table.c.id == hold_id)
    committed = connection.execute(held).first() is not None if hold_id is not None else False
    if not committed and (key is None or not is_registered(connection, ref.task_id, key)):
        return Outcome()
    entry = "its start was not completed: the connection to the database broke while it was committed"
    return end(connection, ref.task_id, TaskStatus.ERROR, entry=entry)


def end(
    connection: Connection, task_id: int, status: TaskStatus, *, entry: str | None = None, give_up: bool = True
) -> Outcome:
    """End a task from outside, whatever of it is open.

    Args:
        connection: In whose transaction to write.
        task_id: Id of the task.
        status: SUCCESS or ERROR.
        entry: A log entry to add, only if this call ends the task.
        give_up: Whether open holds are given up.

    Returns:
        `ended` is None if it had already ended.
    """
    job = lock_job(connection, task_id)
    finished = connection.execute(select(task_table.c.finished_at).where(task_table.c.id == task_id)).scalar()
    if finished is not None or (job is not None and job.end_status is not None):
        return Outcome()
    if give_up:
        connection.execute(delete(hold_table).where(hold_table.c.task_id == task_id))
    if job is None:
        take_up(connection, task_id)
    if entry:
        tasklog.append(connection, task_id, [entry], column=False)
    shown = _finish(connection, task_id, status, log=bool(entry))
    return Outcome(changed=True, ended=status, shown=shown)


def remove(connection: Connection, task_id: int) -> None:
    """Remove a task that has no steps, outputs, links or subscribers, with all that was recorded of it."""
    lock_job(connection, task_id)
    for table in (*RECORDS, job_table):
        connection.execute(delete(table).where(table.c.task_id == task_id))
    connection.execute(delete(task_table).where(task_table.c.id == task_id))


def evaluate(connection: Connection, task_id: int) -> Outcome:
    """Look once more whether a task has ended; for upkeep."""
    job = lock_job(connection, task_id)
    if job is None or job.end_status is not None:
        return Outcome()
    ended = _look(connection, job).ended
    return Outcome(changed=ended is not None, ended=ended, shown=_finish(connection, task_id, ended))


@dataclass(frozen=True, slots=True)
class _Look:
    """What is left of a task.

    Attributes:
        open: Executions or holds are open.
        several: It has had more than one execution.
        ended: SUCCESS if nothing is left to come.
    """

    open: bool
    several: bool = False
    ended: TaskStatus | None = None


_NOTHING_OPEN = _Look(open=False)


def _look(connection: Connection, job: Job) -> _Look:
    """Look whether nothing of a task is left to come. The caller holds its job row."""
    row = connection.execute(_LOOK, {"of_task": job.ref.task_id}).one()
    several = row.members >= _SEVERAL
    if row.open or not job.had_work or job.open_ended:
        return _Look(open=bool(row.open), several=several)
    if row.waiting and not job.parked:
        connection.execute(update(job_table).where(job_table.c.task_id == job.ref.task_id).values(parked=True))
    waits = row.waiting or job.parked
    return _Look(open=False, several=several, ended=None if waits else TaskStatus.SUCCESS)


def _canvas(connection: Connection, task_id: int, *, to_come: int = 0, ended: bool = False) -> Canvas:
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


def show_canvas(connection: Connection, task_id: int) -> None:
    """Show in the `ProcessingTask` row of a task of several members how far they have come, if the row is free."""
    if lock_job(connection, task_id) is None:
        return
    canvas = _canvas(connection, task_id)
    if canvas.is_several:
        _finish(connection, task_id, None, progress=canvas)


def _finish(
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
    locked = connection.execute(_LOCK_TASK_IF_FREE, {"of_task": task_id}).one_or_none()
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
        progress = _progress_of(connection, task_id, progress, _shown_progress(locked))
    if progress is not None and locked.finished_at is None:
        _show_progress(connection, task_id, progress)
        events.add(TaskEvent.DETAILS)
    if ended is not None and locked.finished_at is None:
        events |= copy_end(connection, task_id, ended, moment, clear_steps=not has_no_step)
    if log:
        tasklog.refresh_column(connection, task_id)
    if locked.subscribed:
        outbox.add(connection, task_id, events)
    return True


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
        tasklog.refresh_column(connection, task_id)
    return True


def _shown_progress(row: Row[Any]) -> Progress | None:
    if row.progress_value is None:
        return None
    # NULL in the database of a runner reads as its default.
    start, target, unit = row.progress_start, row.progress_target, row.progress_unit
    return Progress(
        row.progress_value, start or 0.0, 100.0 if target is None else target, "%" if unit is None else unit
    )


def _progress_of(connection: Connection, task_id: int, canvas: Canvas, shown: Progress | None) -> Progress | None:
    """Return what a task of several members is to show; None if that stays as it is.

    What a plugin wrote into the row wins. What the row shows is ours if a canvas showed it, or if it is what an
    execution reported while it was alone.
    """
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


def _show_progress(connection: Connection, task_id: int, progress: Progress) -> None:
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
        tasklog.append(connection, ref.task_id, lines, column=False)
    shown: Progress | Canvas | None = progress
    held = False
    if progress is not None:
        _set_progress(connection, ref.task_id, key, progress)
        canvas = _canvas(connection, ref.task_id, to_come=to_come)
        if counts_members and (canvas.held or canvas.is_several):
            shown, held = canvas, canvas.held
    if not lines and shown is None:
        return True
    return _finish(connection, ref.task_id, None, log=bool(lines), progress=shown) and not held


def _set_progress(connection: Connection, task_id: int, key: ExecutionKey, progress: Progress) -> None:
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


def beat(connection: Connection, running: Iterable[tuple[TaskRef, ExecutionKey]]) -> None:
    """Renew the leases of running executions."""
    keys = sorted((ref.task_id, key.celery_id, key.retries, key.nesting) for ref, key in running)
    if keys:
        mine = or_(
            *(
                is_of_key(execution_table, task_id, ExecutionKey(celery_id, retries, nesting))
                for task_id, celery_id, retries, nesting in keys
            )
        )
        connection.execute(
            update(execution_table).where(mine, execution_table.c.closed_at.is_(None)).values(heartbeat_at=now())
        )


def find_open(
    connection: Connection, celery_id: str, key: ExecutionKey | None = None
) -> tuple[TaskRef, ExecutionKey, str] | None:
    """Find an open execution with a Celery id: its task, key, and the name of the Celery task.

    Args:
        connection: Where to read.
        celery_id: The id.
        key: Only the execution with this key. Without it, one that runs comes before one that only waits, since a
            retry waits under the same id; of several the newest.
    """
    conditions = [execution_table.c.celery_id == column_id(celery_id), execution_table.c.closed_at.is_(None)]
    if key is not None:
        conditions += [execution_table.c.retries == key.retries, execution_table.c.nesting == key.nesting]
    row = connection.execute(
        select(
            execution_table.c.task_id,
            job_table.c.token,
            execution_table.c.retries,
            execution_table.c.nesting,
            execution_table.c.name,
        )
        .join(job_table, job_table.c.task_id == execution_table.c.task_id)
        .where(*conditions)
        .order_by(case((is_running(), 0), else_=1), execution_table.c.nesting.desc(), execution_table.c.retries.desc())
        .limit(1)
    ).first()
    if row is None:
        return None
    return TaskRef(row.task_id, row.token), ExecutionKey(celery_id, row.retries, row.nesting), row.name


def find_task(connection: Connection, celery_id: str) -> TaskRef | None:
    """Find the task that a Celery id belongs to; of several, the one with the newest message of that id."""
    row = connection.execute(
        select(execution_table.c.task_id, job_table.c.token)
        .join(job_table, job_table.c.task_id == execution_table.c.task_id)
        .where(execution_table.c.celery_id == column_id(celery_id))
        .order_by(_known_since.desc(), execution_table.c.task_id.desc())
        .limit(1)
    ).first()
    return None if row is None else TaskRef(row.task_id, row.token)


def free_nesting(connection: Connection, task_id: int, celery_id: str) -> int:
    """Return a nesting with which no execution of a task has a Celery id."""
    deepest = connection.execute(
        select(func.max(execution_table.c.nesting)).where(
            execution_table.c.task_id == task_id, execution_table.c.celery_id == column_id(celery_id)
        )
    ).scalar()
    return 0 if deepest is None else int(deepest) + 1


def known_messages(connection: Connection, task_id: int, parent_id: str) -> tuple[set[str], set[str]]:
    """Return the Celery ids of all executions of a task, and of those that one of them has published."""
    rows = connection.execute(
        select(execution_table.c.celery_id, execution_table.c.parent_id).where(execution_table.c.task_id == task_id)
    ).all()
    return {row.celery_id for row in rows}, {row.celery_id for row in rows if row.parent_id == parent_id}


def open_celery_ids(connection: Connection, task_id: int) -> list[str]:
    """Return the Celery ids of a task's open executions that are to be revoked when it is cancelled.

    What waits for the header of a chord is left out: it ends by itself, and only then answers for the body.
    """
    rows = connection.execute(
        select(execution_table.c.celery_id)
        .where(
            execution_table.c.task_id == task_id,
            execution_table.c.closed_at.is_(None),
            execution_table.c.name != CHORD_UNLOCK,
        )
        .distinct()
    )
    return [row.celery_id for row in rows]


#: What only the publisher knows. An execution often begins before its publication is recorded.
_PUBLISHED: Final = ("published_at", "eta", "queue", "parent_id")


@functools.cache
def _registration(dialect: str) -> Any:
    """Return the INSERT of published messages; to a row that is there already it adds what is missing."""
    table = execution_table
    statement: Any
    if dialect in {"mysql", "mariadb"}:
        statement = mysql_insert(table)
        missing = {name: func.coalesce(table.c[name], statement.inserted[name]) for name in _PUBLISHED}
        return statement.on_duplicate_key_update(missing)
    statement = postgresql_insert(table) if dialect == "postgresql" else sqlite_insert(table)
    missing = {name: func.coalesce(table.c[name], statement.excluded[name]) for name in _PUBLISHED}
    return statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=missing)
