"""The mark for a progress that a plugin wrote into the row of its task, where it looks like that of a canvas.

A row of its own: the plugin's transaction may stay open for long, and must lock nothing that the ends of executions
wait for.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, bindparam, exists

from ...clock import now
from ...database.inserts import insert_absent
from ...database.tables.jobs import own_progress_table

#: Whether the progress of a task is its plugin's.
IS_OWN: Final = exists().where(own_progress_table.c.task_id == bindparam("of_task"))


def mark_own(connection: Connection, task_id: int) -> None:
    """Note that a plugin has written the progress of a task; from then on no canvas shows its own there."""
    insert_absent(connection, own_progress_table, [{"task_id": task_id, "created_at": now()}])
