"""The first work of tasks that may be started again, in a table until the task is pruned. Never commits."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select

from ...database.inserts import insert_absent
from ...database.tables.executions import execution_table, work_table


@dataclass(frozen=True, slots=True)
class KeptWork:
    """A canvas with its arguments and options, as text.

    Attributes:
        content_type: Of the serializer.
        content_encoding: Character set of the body; `binary` for one that is no text, which is kept as base64.
        body: What the serializer made of it.
    """

    content_type: str
    content_encoding: str
    body: str


def keep_first(connection: Connection, task_id: int, work: KeptWork, *, registered: str | None = None) -> None:
    """Keep the work of a task if it is its first.

    Args:
        connection: In whose transaction to write.
        task_id: The task.
        work: Its work.
        registered: Celery id of its first message, as the column holds it; None if it is not registered yet.
    """
    others = select(execution_table.c.task_id).where(execution_table.c.task_id == task_id).limit(1)
    if registered is not None:
        others = others.where(execution_table.c.celery_id != registered)
    if connection.execute(others).first() is not None:
        return
    row = {
        "task_id": task_id,
        "content_type": work.content_type,
        "content_encoding": work.content_encoding,
        "body": work.body,
    }
    insert_absent(connection, work_table, [row])


def find(connection: Connection, task_id: int) -> KeptWork | None:
    """Return the work that is kept of a task."""
    query = select(work_table.c.content_type, work_table.c.content_encoding, work_table.c.body)
    row = connection.execute(query.where(work_table.c.task_id == task_id)).one_or_none()
    return None if row is None else KeptWork(row.content_type, row.content_encoding, row.body)


def is_kept(connection: Connection, task_id: int) -> bool:
    """Tell whether the work of a task is kept."""
    return connection.execute(select(work_table.c.task_id).where(work_table.c.task_id == task_id)).first() is not None
