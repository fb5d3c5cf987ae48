"""Reads what many tasks are doing: the open work of each, in the words of `rows.activity`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row
from sqlalchemy.orm import Session

from ..clock import now
from ..database.tables.runner import task_table
from ..models.task import ProcessingTask
from ..settings.values import Settings
from ..states import ERROR_WORDS, UNKNOWN, TaskStatus, with_error_word
from . import open_work
from .rows.activity import Activity, ActivityWord, Facts, activity_of
from .rows.parts import waiting_steps
from .rows.query import task_query
from .rows.views import StepView


def activity_view(session: Session, task: ProcessingTask, settings: Settings) -> Activity:
    rows = session.execute(task_query().where(task_table.c.id == task.id)).all()
    waiting = waiting_steps(session, [row.id for row in rows if row.finished_at is None])
    activities = activities_of(session, settings, rows, waiting)
    # A row that was deleted meanwhile does nothing.
    return activities.get(task.id) or Activity(ActivityWord.UNTRACKED, "there is no such task any more")


def activities_of(
    source: Connection | Session, settings: Settings, rows: Sequence[Row[Any]], waiting: Mapping[int, StepView]
) -> dict[int, Activity]:
    work = open_work.read(source, [row.id for row in rows if row.finished_at is None])
    failed = [row.id for row in rows if row.finished_at is not None and row.task_status in ERROR_WORDS]
    causes = open_work.read_causes(source, failed)
    nothing, moment = open_work.OpenWork(), now()
    found = {}
    for row in rows:
        its, step = work.get(row.id, nothing), waiting.get(row.id)
        facts = Facts(
            status=status_of(row.finished_at, row.task_status, settings),
            finished=row.finished_at is not None,
            tracked=bool(row.tracked),
            open_ended=bool(row.open_ended),
            parked=bool(row.parked),
            had_work=bool(row.had_work),
            submitting=its.submitting,
            step_id=None if step is None else step.step_id,
            messages=its.messages,
            cause=causes.get(row.id),
        )
        found[row.id] = activity_of(facts, moment, settings.heartbeat_seconds)
    return found


def status_of(finished_at: datetime | None, word: str | None, settings: Settings) -> str:
    if finished_at is None:
        return TaskStatus.PENDING.value
    return with_error_word(word, settings.error_status) or UNKNOWN
