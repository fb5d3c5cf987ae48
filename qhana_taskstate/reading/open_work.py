"""Reads the few facts from which `activity` says what tasks are doing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, case, func, or_, select
from sqlalchemy.orm import Session

from ..database.tables.executions import execution_table
from ..database.tables.jobs import hold_table, job_table
from ..database.tables.log import log_table
from ..states import FAILED_STATES, ExecutionState
from .rows.activity import OpenMessages

#: Ids in one query; SQLite before 3.32 takes 999 bound values.
_IDS_AT_ONCE: Final = 500

#: Characters of an error or log entry that are read to say its first line.
_CAUSE_LENGTH: Final = 500

#: How long before an end the log entry is written that belongs to it, at most.
_WITH_THE_END: Final = timedelta(seconds=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenWork:
    """What of a task is open.

    Attributes:
        messages: Its open executions, those that are alike together.
        submitting: A submission is under way.
    """

    messages: tuple[OpenMessages, ...] = ()
    submitting: bool = False


def read(source: Connection | Session, task_ids: Sequence[int]) -> Mapping[int, OpenWork]:
    """Return what of these tasks is open; a task of which nothing is open is left out."""
    messages: dict[int, list[OpenMessages]] = defaultdict(list)
    held: set[int] = set()
    for ids in _pages(task_ids):
        for row in source.execute(_open_messages(execution_table.c.task_id.in_(ids))):
            messages[row.task_id].append(
                OpenMessages(
                    state=row.state,
                    count=row.number,
                    queue=row.queue,
                    worker=row.worker,
                    retried=bool(row.retried),
                    handed_back=bool(row.handed_back),
                    published_at=row.published_at,
                    due=row.due if row.delayed else None,
                    heartbeat_at=row.heartbeat_at,
                )
            )
        held.update(source.execute(select(hold_table.c.task_id).where(hold_table.c.task_id.in_(ids))).scalars())
    return {
        task_id: OpenWork(messages=tuple(messages.get(task_id, ())), submitting=task_id in held)
        for task_id in {*messages, *held}
    }


def _open_messages(meant: ColumnElement[bool]) -> Any:
    table = execution_table.c
    begun = table.state == ExecutionState.RUNNING.value
    alike = (
        table.task_id,
        table.state,
        table.queue,
        # Of one that waits for its second delivery it says who ran it.
        table.worker,
        case((table.retries > 0, 1), else_=0).label("retried"),
        case((~begun & (table.deliveries > 0), 1), else_=0).label("handed_back"),
        case((table.eta.is_not(None), 1), else_=0).label("delayed"),
    )
    return (
        select(
            *alike,
            func.count().label("number"),
            func.min(table.published_at).label("published_at"),
            func.min(table.eta).label("due"),
            func.max(table.heartbeat_at).label("heartbeat_at"),
        )
        .where(meant, table.closed_at.is_(None))
        .group_by(*alike)
    )


def runs_anything(connection: Connection, since: datetime) -> bool:
    """Tell whether an execution of any task has given a sign of life since a moment (aware)."""
    table = execution_table.c
    running = (table.closed_at.is_(None), table.state == ExecutionState.RUNNING.value, table.heartbeat_at > since)
    return connection.execute(select(table.task_id).where(*running).limit(1)).first() is not None


def read_causes(source: Connection | Session, task_ids: Sequence[int]) -> Mapping[int, str]:
    """Return why tasks ended as an error, in one line each: the failure that ended it, or its last log entry.

    What failed after the end, as the dropped messages of a cancelled task do, is no cause.
    """
    found: dict[int, str] = {}
    for ids in _pages(task_ids):
        for row in source.execute(_failures(ids)):
            text = ": ".join(part for part in (row.error_type, row.error) if part)
            found[row.task_id] = _first_line(f"{row.name}: {text}" if text else f"{row.name} {row.state.lower()}")
        others = [task_id for task_id in ids if task_id not in found]
        for row in source.execute(_last_entries(others)):
            if row.ended_at - row.created_at <= _WITH_THE_END:
                found[row.task_id] = _first_line(row.text)
    return {task_id: cause for task_id, cause in found.items() if cause}


def _failures(task_ids: Sequence[int]) -> Any:
    """Return the query for the failure that ended each task: of those until its end, the last."""
    table = execution_table.c
    ranked = (
        select(
            table.task_id,
            table.name,
            table.state,
            table.error_type,
            func.substr(table.error, 1, _CAUSE_LENGTH).label("error"),
            func.row_number().over(partition_by=table.task_id, order_by=table.closed_at.desc()).label("place"),
        )
        .join(job_table, job_table.c.task_id == table.task_id)
        .where(
            table.task_id.in_(task_ids),
            table.state.in_(sorted(state.value for state in FAILED_STATES)),
            or_(job_table.c.ended_at.is_(None), table.closed_at <= job_table.c.ended_at),
        )
        .subquery()
    )
    return select(ranked).where(ranked.c.place == 1)


def _last_entries(task_ids: Sequence[int]) -> Any:
    """Return the query for the log entry that was written with the end of each task."""
    ended_at = job_table.c.ended_at
    last = (
        select(log_table.c.task_id, func.max(log_table.c.id).label("id"), func.max(ended_at).label("ended_at"))
        .join(job_table, job_table.c.task_id == log_table.c.task_id)
        .where(log_table.c.task_id.in_(task_ids), log_table.c.id > 0, log_table.c.created_at <= ended_at)
        .group_by(log_table.c.task_id)
        .subquery()
    )
    return select(
        log_table.c.task_id,
        func.substr(log_table.c.text, 1, _CAUSE_LENGTH).label("text"),
        log_table.c.created_at,
        last.c.ended_at,
    ).join(last, last.c.id == log_table.c.id)


def _first_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[0].rstrip() + (" …" if len(lines) > 1 else "") if lines else ""


def _pages(task_ids: Sequence[int]) -> Iterator[Sequence[int]]:
    for position in range(0, len(task_ids), _IDS_AT_ONCE):
        yield task_ids[position : position + _IDS_AT_ONCE]
