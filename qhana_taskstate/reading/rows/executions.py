"""Reads the executions of a task."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from ...clock import now
from ...database.tables.executions import execution_table
from .views import ExecutionView, maybe_progress, seconds


def executions(connection: Connection, task_id: int) -> list[ExecutionView]:
    """Return all executions of a task in the order in which they were published, attempts of one message in theirs.

    Waiting and run time of an open execution reach up to now.
    """
    moment = now()
    rows = connection.execute(select(execution_table).where(execution_table.c.task_id == task_id)).mappings()
    views = [_execution(row, moment) for row in rows]
    latest = datetime.max.replace(tzinfo=moment.tzinfo)
    return sorted(
        views,
        key=lambda view: (
            view.published_at or view.started_at or view.closed_at or latest,
            view.celery_id,
            view.nesting,
            view.retries,
        ),
    )


def _execution(row: Mapping[Any, Any], moment: datetime) -> ExecutionView:
    could_begin = max(filter(None, (row["published_at"], row["eta"])), default=None)
    over = row["closed_at"] or moment
    return ExecutionView(
        celery_id=row["celery_id"],
        retries=row["retries"],
        nesting=row["nesting"],
        name=row["name"],
        state=row["state"],
        parent_id=row["parent_id"],
        queue=row["queue"],
        published_at=row["published_at"],
        eta=row["eta"],
        started_at=row["started_at"],
        closed_at=row["closed_at"],
        heartbeat_at=row["heartbeat_at"],
        worker=row["worker"],
        host=row["host"],
        pid=row["pid"],
        pid_started=row["pid_started"],
        acks_late=row["acks_late"],
        max_retries=row["max_retries"],
        deliveries=row["deliveries"],
        losses=row["losses"],
        deadline_at=row["deadline_at"],
        error_type=row["error_type"],
        error=row["error"],
        traceback=row["traceback"],
        progress=maybe_progress(
            row["progress_value"], row["progress_start"], row["progress_target"], row["progress_unit"]
        ),
        trace_id=row["trace_id"],
        waiting_seconds=seconds(could_begin, row["started_at"] or over),
        run_seconds=seconds(row["started_at"], over),
    )
