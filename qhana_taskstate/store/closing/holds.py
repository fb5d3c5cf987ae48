"""Holds, which keep a task open while a canvas is submitted: their lease and their release."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from ...clock import now
from ...database.scripts.statement import Statement
from ...database.tables.executions import execution_table
from ...database.tables.jobs import hold_table
from ...facts import Publication, TaskRef
from ...states import TaskStatus
from ..executions.registration import registration
from ..script import Script
from ..task.jobs import lock_job, new_token
from ..task_end.evaluation import evaluation
from ..task_end.from_outside import end
from ..task_end.outcome import Outcome


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


_END_HOLD = delete(hold_table).where(hold_table.c.id == bindparam("hold_id", type_=hold_table.c.id.type))


def release_script(
    ref: TaskRef, hold_id: str, publications: Sequence[Publication], *, deadline_seconds: float
) -> Script[Outcome]:
    """Return what ends a hold, registers what was published meanwhile, and looks whether the task has ended.

    An empty submission (an empty group) so ends its task at once.
    """
    published = registration(ref, publications, deadline_seconds=deadline_seconds) if publications else []
    return evaluation(ref, *published, Statement(_END_HOLD, {"hold_id": hold_id}))


def release(
    connection: Connection,
    ref: TaskRef,
    hold_id: str,
    publications: Sequence[Publication],
    *,
    deadline_seconds: float,
) -> Outcome:
    """Do what `release_script` says, in the transaction of a connection."""
    return release_script(ref, hold_id, publications, deadline_seconds=deadline_seconds)(connection)


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
