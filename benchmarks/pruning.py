"""Remove many tasks while somebody else needs them: `python -m benchmarks.pruning DATABASE_URL TASKS`, JSON.

A second connection locks rows that are being removed, one after the other, and times how long it waits for each: that
is how long the removal holds a lock.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from datetime import timedelta
from typing import Any, Final

from celery import Celery
from sqlalchemy import func, select

from qhana_taskstate import TaskState
from qhana_taskstate.database.engine import Database
from qhana_taskstate.database.tables.jobs import job_table

#: How many tasks one transaction writes while a database is filled.
_FILLED_AT_ONCE: Final = 250_000

#: What a finished task leaves, for the tasks of a range; each with one execution and two lines.
_ROWS: Final = (
    'INSERT INTO "ProcessingTask" (id, task_name, started_at, finished_at, task_status, task_log, multi_step,'
    " current_step, parameters, progress_value, progress_start, progress_target, progress_unit)"
    " SELECT i, 'task ' || (i %% 7), now() - interval '9 days', now() - interval '8 days',"
    " CASE WHEN i %% 50 = 0 THEN 'ERROR' ELSE 'SUCCESS' END, 'half of it is done' || chr(10) || 'done', false, 0, '',"
    " 100, 0, 100, '%%' FROM generate_series(%(first)s::int, %(last)s::int) i",
    "INSERT INTO taskstate_job (task_id, token, open_ended, parked, had_work, end_status, ended_at, end_copied,"
    " created_at) SELECT i, md5(i::text), false, false, true, 'SUCCESS', now() - interval '8 days', true,"
    " now() - interval '9 days' FROM generate_series(%(first)s::int, %(last)s::int) i",
    "INSERT INTO taskstate_execution (task_id, celery_id, retries, nesting, name, state, published_at, started_at,"
    " closed_at, host, pid, deliveries, losses) SELECT i, 'celery-' || i, 0, 0, 'many_tasks.usual', 'SUCCESS',"
    " now() - interval '9 days', now() - interval '9 days', now() - interval '8 days', 'host', 1, 1, 0"
    " FROM generate_series(%(first)s::int, %(last)s::int) i",
    "INSERT INTO taskstate_log (task_id, text, glued, created_at)"
    " SELECT i, line, false, now() - interval '8 days' FROM generate_series(%(first)s::int, %(last)s::int) i,"
    " unnest(ARRAY['half of it is done', 'done']) line",
)


def fill(database: Database, tasks: int) -> None:
    """Add so many finished tasks to an empty database of PostgreSQL; does nothing to one that has some."""
    with database.reading() as connection:
        if connection.execute(
            select(func.count()).select_from(select(job_table.c.task_id).limit(1).subquery())
        ).scalar():
            return
    for first in range(1, tasks + 1, _FILLED_AT_ONCE):
        with database.transaction() as connection:
            for statement in _ROWS:
                connection.exec_driver_sql(statement, {"first": first, "last": min(first + _FILLED_AT_ONCE - 1, tasks)})
    with database.transaction() as connection:
        connection.exec_driver_sql(
            """SELECT setval(pg_get_serial_sequence('"ProcessingTask"', 'id'), %(last)s)""", {"last": tasks}
        )


class _Rival(threading.Thread):
    """Locks the job row of the oldest task again and again, which is one that is being removed."""

    def __init__(self, database: Database) -> None:
        super().__init__(daemon=True)
        self._database = database
        self._done = threading.Event()
        self.waits: list[float] = []

    def run(self) -> None:
        oldest = select(func.min(job_table.c.task_id))
        with self._database.apart() as connection:
            while not self._done.is_set():
                seen = connection.execute(oldest).scalar()
                connection.rollback()
                locks = select(job_table.c.task_id).where(job_table.c.task_id == seen).with_for_update()
                began = time.perf_counter()
                connection.execute(locks)
                self.waits.append(1000 * (time.perf_counter() - began))
                connection.rollback()
                time.sleep(0.002)

    def stop(self) -> list[float]:
        """End it; returns the milliseconds that it waited."""
        self._done.set()
        self.join()
        return self.waits


def main() -> None:
    """Fill, remove, and print how long the rival waited."""
    taskstate = TaskState(Celery("pruning", broker="memory://"), database_url=sys.argv[1])
    taskstate.upgrade()
    fill(taskstate.database, int(sys.argv[2]))
    rival = _Rival(taskstate.database)
    rival.start()
    began = time.perf_counter()
    pruned: Any = taskstate.prune(timedelta(days=1))
    seconds = time.perf_counter() - began
    waits = rival.stop()
    print(json.dumps({"tasks": pruned.tasks, "busy": pruned.busy, "seconds": seconds, "waits": sorted(waits)[-100:]}))


if __name__ == "__main__":
    main()
