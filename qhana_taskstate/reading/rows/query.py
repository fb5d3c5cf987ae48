"""The query for what is shown of tasks."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Select, select, type_coerce

from ...database.tables.base import UtcTime
from ...database.tables.jobs import job_table
from ...database.tables.runner import task_table

#: Ids in one query; SQLite before 3.32 takes 999 bound values.
IDS_AT_ONCE: Final = 500


def task_query() -> Select[Any]:
    return select(
        task_table.c.id,
        task_table.c.task_name,
        # NULL stays None here.
        type_coerce(task_table.c.started_at, UtcTime).label("started_at"),
        task_table.c.finished_at,
        task_table.c.task_status,
        task_table.c.progress_value,
        task_table.c.progress_start,
        task_table.c.progress_target,
        task_table.c.progress_unit,
        job_table.c.token.is_not(None).label("tracked"),
        job_table.c.open_ended,
        job_table.c.parked,
        job_table.c.had_work,
    ).select_from(task_table.outerjoin(job_table, job_table.c.task_id == task_table.c.id))
