"""Settles executions that lost their worker or their message: handed back, sent again, or LOST."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, literal, select, update

from ...clock import after, now
from ...database.dialects import limit_lock_wait
from ...database.tables.base import NAME_LENGTH
from ...database.tables.executions import execution_table, message_table
from ...facts import ExecutionKey, Failure, KeptMessage, TaskRef
from ...states import ExecutionState
from ..executions.heartbeats import Lease, is_running
from ..executions.keys import is_of_key
from ..executions.registration import later
from ..executions.waiting import Waiting
from ..task.jobs import lock_job
from ..task_end.outcome import Outcome
from .close import Closing, close


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
