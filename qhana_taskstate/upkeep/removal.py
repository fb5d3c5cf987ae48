"""Which old tasks are removed, and the removal of all their rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Table, and_, delete, literal, or_, select, union_all

from ..database.dialects import limit_lock_wait
from ..database.tables.deliveries import change_table, delivery_table
from ..database.tables.executions import execution_table, message_table
from ..database.tables.jobs import hold_table, job_table
from ..database.tables.log import log_table
from ..database.tables.runner import file_table, link_table, step_table, subscription_table, task_table
from ..store.task.removal import RECORDS

#: How many rows of the log, and how many executions, one transaction removes at most.
_ROWS: Final = 2000


#: Seconds that a row is waited for which somebody holds although its task is free (PostgreSQL).
_LOCK_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovedOutput:
    """An output of a removed task: the file itself is left to the application.

    Attributes:
        task_id: Id that its task had.
        file_name: Its name.
        storage_provider: Who stores it, such as `local_filesystem`.
        file_storage_data: What finds it there, such as a path.
        security_tag: Its tag.
        file_type: What it holds.
        mimetype: Its MIME type.
    """

    task_id: int
    file_name: str
    storage_provider: str
    file_storage_data: str
    security_tag: str
    file_type: str | None
    mimetype: str | None


@dataclass(slots=True)
class _Chosen:
    """Of some tasks, those that can go now, and why the others cannot."""

    ids: list[int] = field(default_factory=list)
    open: set[int] = field(default_factory=set)
    pending: set[int] = field(default_factory=set)
    busy: set[int] = field(default_factory=set)


def is_old(row: Any, cutoff: datetime) -> bool:
    # Where the plugin runner deleted its row, ours are left over.
    moment = row.finished_at if row.task is not None else row.created_at
    return moment is not None and moment < cutoff


def choose(connection: Connection, ids: Sequence[int], cutoff: datetime) -> _Chosen:
    """Lock the tasks that can go, without waiting: a task whose row somebody holds is kept.

    Its job row is locked first, as everywhere, so that nobody begins or subscribes in the meantime.
    """
    limit_lock_wait(connection, _LOCK_SECONDS)
    chosen = _Chosen()
    jobs = _existing(connection, job_table.c.task_id, ids)
    free = (set(ids) - jobs) | _locked(connection, job_table.c.task_id, jobs)
    chosen.busy = set(ids) - free
    chosen.open = _existing_in(
        connection,
        (execution_table, execution_table.c.closed_at.is_(None)),
        (hold_table, literal(1) == 1),
        ids=free,
    )
    chosen.pending = _existing_in(
        connection,
        (change_table, literal(1) == 1),
        (delivery_table, or_(delivery_table.c.due_at.is_not(None), delivery_table.c.lease.is_not(None))),
        ids=free - chosen.open,
    )
    free -= chosen.open | chosen.pending
    tasks = _existing(connection, task_table.c.id, free)
    old = _locked(
        connection,
        task_table.c.id,
        tasks,
        and_(task_table.c.finished_at.is_not(None), task_table.c.finished_at < cutoff),
    )
    chosen.busy |= tasks - old
    # Without either row somebody else has removed it meanwhile.
    chosen.ids = sorted(((free & jobs) - tasks) | old)
    return chosen


def _existing(connection: Connection, key: Any, ids: Iterable[int]) -> set[int]:
    wanted = sorted(ids)
    return set(connection.execute(select(key).where(key.in_(wanted))).scalars()) if wanted else set()


def _existing_in(connection: Connection, *tables: tuple[Table, Any], ids: set[int]) -> set[int]:
    if not ids:
        return set()
    parts = [select(table.c.task_id).where(table.c.task_id.in_(sorted(ids)), condition) for table, condition in tables]
    return set(connection.execute(union_all(*parts)).scalars())


def _locked(connection: Connection, key: Any, ids: Iterable[int], *conditions: Any) -> set[int]:
    wanted = sorted(ids)
    if not wanted:
        return set()
    statement = select(key).where(key.in_(wanted), *conditions).order_by(key).with_for_update(skip_locked=True)
    return set(connection.execute(statement).scalars())


def outputs_of(connection: Connection, ids: Sequence[int]) -> list[RemovedOutput]:
    if not ids:
        return []
    names = (
        "task_id",
        "file_name",
        "storage_provider",
        "file_storage_data",
        "security_tag",
        "file_type",
        "mimetype",
    )
    rows = connection.execute(select(*(file_table.c[name] for name in names)).where(file_table.c.task_id.in_(ids)))
    return [RemovedOutput(**row) for row in rows.mappings()]


def remove_rows(connection: Connection, ids: Sequence[int]) -> bool:
    """Remove the rows of tasks that the caller has locked.

    Returns:
        False if they have so many that only a part was removed: to be called again in another transaction.
    """
    if not ids:
        return True
    entries = connection.execute(select(log_table.c.id).where(log_table.c.task_id.in_(ids)).limit(_ROWS + 1)).scalars()
    found = list(entries)
    if len(found) > _ROWS:
        connection.execute(delete(log_table).where(log_table.c.id.in_(found[:_ROWS])))
        return False
    executions = connection.execute(
        select(execution_table.c.task_id, execution_table.c.celery_id)
        .where(execution_table.c.task_id.in_(ids))
        .limit(_ROWS + 1)
    ).all()
    if len(executions) > _ROWS:
        for task_id in {row.task_id for row in executions}:
            celery_ids = [row.celery_id for row in executions[:_ROWS] if row.task_id == task_id]
            for table in (message_table, execution_table):
                connection.execute(delete(table).where(table.c.task_id == task_id, table.c.celery_id.in_(celery_ids)))
        return False
    for table in (*RECORDS, subscription_table, link_table, file_table):
        connection.execute(delete(table).where(table.c.task_id.in_(ids)))
    for table, key in ((step_table, step_table.c.id), (task_table, task_table.c.id), (job_table, job_table.c.task_id)):
        connection.execute(delete(table).where(key.in_(ids)))
    return True
