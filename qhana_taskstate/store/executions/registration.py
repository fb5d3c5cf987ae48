"""Registers published messages as executions that wait to begin."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Table, bindparam, func, literal, select
from sqlalchemy.dialects.mysql import insert as mysql_insert
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from ...clock import after, as_utc, now
from ...database.dialects import KINDS
from ...database.inserts import absent, insert_absent
from ...database.scripts.prepared import PerDatabase
from ...database.scripts.statement import Statement
from ...database.tables.base import NAME_LENGTH
from ...database.tables.executions import execution_table, message_table
from ...database.tables.types import LARGEST_INTEGER, nearest_count
from ...facts import ExecutionKey, KeptMessage, Publication, TaskRef
from ...states import ExecutionState
from .celery_ids import column_id
from .conditions import IS_JOB, token_of
from .keys import is_of_key, key_columns

#: Seconds that a worker has to say that a message expired, the difference of two clocks included.
_AFTER_EXPIRY_SECONDS: Final = 30.0


known_since = func.coalesce(execution_table.c.published_at, execution_table.c.started_at, execution_table.c.closed_at)


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
    rows = _rows(task_id, publications, deadline_seconds)
    if rows:
        connection.execute(_registration(connection.dialect.name), rows if len(rows) > 1 else rows[0])
    for publication in publications:
        if publication.message is not None:
            keep_message(connection, task_id, publication.key, publication.message)


def registration(ref: TaskRef, publications: Collection[Publication], *, deadline_seconds: float) -> list[Statement]:
    """Return the statements that do what `register` does, if a message carries the token of the task."""
    of_job = token_of(ref)
    rows = [_of_row(row) | of_job for row in _rows(ref.task_id, publications, deadline_seconds)]
    kept = [
        _of_row(_kept_row(ref.task_id, publication.key, publication.message)) | of_job
        for publication in publications
        if publication.message is not None
    ]
    found = [Statement(_REGISTRATION_OF_JOB, rows)]
    return [*found, Statement(_KEEPING_OF_JOB, kept)] if kept else found


def _of_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a row by the names by which a SELECT of them knows them."""
    return {f"new_{name}": value for name, value in row.items()}


def _rows(task_id: int, publications: Collection[Publication], deadline_seconds: float) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
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
    # By key, the order in which everybody locks executions.
    return sorted(rows, key=lambda row: (str(row["celery_id"]), row["retries"], row["nesting"]))


def _is_whole(key: ExecutionKey) -> bool:
    return column_id(key.celery_id) == key.celery_id


def keep_message(connection: Connection, task_id: int, key: ExecutionKey, message: KeptMessage) -> None:
    """Keep a message, so that it can be sent again if the broker loses it, until its execution is closed."""
    insert_absent(connection, message_table, [_kept_row(task_id, key, message)])


def _kept_row(task_id: int, key: ExecutionKey, message: KeptMessage) -> dict[str, Any]:
    return {
        **key_columns(task_id, key),
        **dataclasses.asdict(message),
        "resends": 0,
        "created_at": now(),
    }


def is_registered(connection: Connection, task_id: int, key: ExecutionKey) -> bool:
    """Tell whether a task has this execution."""
    return connection.execute(select(literal(1)).where(is_of_key(execution_table, task_id, key))).first() is not None


def limit(max_retries: object) -> int | None:
    """Return Celery's limit of retries as the column holds it; None for no limit, and for one beyond every count."""
    if type(max_retries) is int and -LARGEST_INTEGER <= max_retries < LARGEST_INTEGER:
        return max_retries
    count = nearest_count(max_retries)
    return None if count is None or count >= LARGEST_INTEGER else count


def _deadline(publication: Publication, seconds: float) -> datetime:
    deadline = after(later(publication.published_at, publication.eta), seconds)
    if publication.expires is None:
        return deadline
    # A worker that gets an expired message says so; but RabbitMQ drops it in the queue and tells nobody (celery 5.7).
    return min(deadline, after(publication.expires, _AFTER_EXPIRY_SECONDS))


def later(published_at: datetime, eta: datetime | None) -> datetime:
    """Return when a message that was published, perhaps with an eta, may begin."""
    return max(published_at, as_utc(eta)) if eta is not None else published_at


def free_nesting(connection: Connection, task_id: int, celery_id: str) -> int:
    """Return a nesting with which no execution of a task has a Celery id."""
    deepest = connection.execute(
        select(func.max(execution_table.c.nesting)).where(
            execution_table.c.task_id == task_id, execution_table.c.celery_id == column_id(celery_id)
        )
    ).scalar()
    return 0 if deepest is None else int(deepest) + 1


#: What only the publisher knows. An execution often begins before its publication is recorded.
_PUBLISHED: Final = ("published_at", "eta", "queue", "parent_id")


@functools.cache
def _registration(dialect: str) -> Any:
    """Return the INSERT of published messages; to a row that is there already it adds what is missing."""
    return _completing(_insert(dialect), dialect)


def _insert(dialect: str) -> Any:
    match dialect:
        case "postgresql":
            return postgresql_insert(execution_table)
        case "sqlite":
            return sqlite_insert(execution_table)
        case _:
            return mysql_insert(execution_table)


def _completing(statement: Any, dialect: str) -> Any:
    table = execution_table
    if dialect in {"mysql", "mariadb"}:
        missing = {name: func.coalesce(table.c[name], statement.inserted[name]) for name in _PUBLISHED}
        return statement.on_duplicate_key_update(missing)
    missing = {name: func.coalesce(table.c[name], statement.excluded[name]) for name in _PUBLISHED}
    return statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=missing)


def _of_job(table: Table, names: Sequence[str]) -> Any:
    """Return the SELECT of values for a row of a table, none if no job row has the token."""
    return select(*(bindparam(f"new_{name}", type_=table.c[name].type) for name in names)).where(IS_JOB)


def _registration_of_job(dialect: str) -> Any:
    names = [*execution_table.primary_key.columns.keys(), "name", "state", "deliveries", "losses", "deadline_at"]
    names += _PUBLISHED
    rows = _of_job(execution_table, names)
    return _completing(_insert(dialect).from_select(names, rows, include_defaults=False), dialect)


def _keeping_of_job(dialect: str) -> Any:
    names = message_table.columns.keys()
    rows = _of_job(message_table, names)
    return absent(message_table, dialect).from_select(names, rows, include_defaults=False)


_REGISTRATION_OF_JOB = PerDatabase({name: _registration_of_job(name) for name in KINDS})
_KEEPING_OF_JOB = PerDatabase({name: _keeping_of_job(name) for name in KINDS})
