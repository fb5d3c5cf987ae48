"""Conditions that many statements share: this execution is open, and its task has this token."""

from __future__ import annotations

from sqlalchemy import and_, bindparam

from ...database.tables.executions import execution_table
from ...database.tables.jobs import job_table
from .keys import IS_NAMED

THIS = and_(IS_NAMED, execution_table.c.closed_at.is_(None))


is_of_token = and_(job_table.c.task_id == execution_table.c.task_id, job_table.c.token == bindparam("of_token"))
