"""Reads what a run left in the database."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime

from sqlalchemy import Connection, select

from benchmarks.chaos.verdict import Member, Row
from qhana_taskstate import ProcessingTask
from qhana_taskstate.database.tables.deliveries import change_table, delivery_table
from qhana_taskstate.database.tables.executions import execution_table
from qhana_taskstate.database.tables.log import log_table

_task = ProcessingTask.__table__


def open_tasks(connection: Connection) -> int:
    """Count tasks that have not ended."""
    return len(connection.execute(select(_task.c.id).where(_task.c.finished_at.is_(None))).all())


def rows_by_plan(connection: Connection) -> dict[int, list[Row]]:
    """Return the tasks of all plans by the number of the plan."""
    members: dict[int, list[Member]] = defaultdict(list)
    for row in connection.execute(select(execution_table).order_by(execution_table.c.published_at)):
        members[row.task_id].append(
            Member(
                name=row.name.removeprefix("chaos."),
                state=row.state,
                pid=row.pid,
                losses=row.losses,
                error_type=row.error_type,
                error=row.error,
            )
        )
    log: dict[int, list[str]] = defaultdict(list)
    for entry in connection.execute(select(log_table.c.task_id, log_table.c.text).order_by(log_table.c.id)):
        log[entry.task_id].append(entry.text)
    found: dict[int, list[Row]] = defaultdict(list)
    for row in connection.execute(select(_task).order_by(_task.c.id)):
        found[int(row.parameters)].append(
            Row(
                id=row.id,
                status=row.task_status or "PENDING",
                started=_seconds(row.started_at) or 0.0,
                finished=_seconds(row.finished_at),
                log="\n".join(log[row.id]),
                data=row.data,
                members=tuple(members[row.id]),
            )
        )
    return found


def _seconds(moment: datetime | None) -> float | None:
    if moment is None:
        return None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def owes_calls(connection: Connection) -> bool:
    """Tell whether a subscriber is still to be told of something."""
    calls = select(delivery_table.c.id).where(delivery_table.c.due_at.is_not(None)).limit(1)
    return any(connection.execute(query).first() for query in (select(change_table.c.id).limit(1), calls))
