"""Time single calls beside many finished tasks: `python -m benchmarks.many_tasks DATABASE_URL TASKS`, JSON.

Fills the database with that many finished tasks if it has none, then answers each line of its input with the
milliseconds that the calls took.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Final

from celery import Celery
from sqlalchemy import Connection, text

from benchmarks.pruning import fill
from qhana_taskstate import ProcessingTask, TaskState, add_log, plugin_task, report_progress
from qhana_taskstate.reading import tasks as reading_tasks
from qhana_taskstate.reading.listing import TaskFilter, find_page

#: How often each call is timed for one answer.
_CALLS: Final = 40


@plugin_task(name="many_tasks.usual")
def usual() -> str:
    """Report once, log once, and return a text, as plugin tasks do."""
    report_progress(50, target=100, unit="%")
    add_log("half of it is done")
    return "done"


def _milliseconds(call: Callable[[], object]) -> float:
    times = []
    for _ in range(_CALLS):
        began = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)


def _calls(taskstate: TaskState, tasks: int) -> dict[str, Callable[[], object]]:
    def reading(read: Callable[[Connection], object]) -> Callable[[], object]:
        return lambda: taskstate.database.read(read)

    settings = taskstate.settings
    return {
        "start and end of a task": lambda: taskstate.start(usual.s()),
        "get_by_id": lambda: ProcessingTask.get_by_id(tasks // 2),
        "find": lambda: taskstate.find(f"celery-{tasks // 2}"),
        "list": reading(lambda connection: reading_tasks.list_tasks(connection, settings)),
        "page of the list": reading(lambda connection: find_page(connection, settings, TaskFilter())),
        "upkeep": lambda: taskstate.upkeep(force=False),
    }


def main() -> None:
    """Fill, then serve requests until the input ends."""
    url, tasks = sys.argv[1], int(sys.argv[2])
    app = Celery("many_tasks", broker="memory://")
    app.conf.update(task_always_eager=True)
    taskstate = TaskState(app, database_url=url)
    taskstate.upgrade()
    fill(taskstate.database, tasks)
    with taskstate.database.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text("VACUUM ANALYZE"))
    calls = _calls(taskstate, tasks)
    for call in calls.values():
        call()
    print(json.dumps({}), flush=True)
    for _ in sys.stdin:
        print(json.dumps({name: _milliseconds(call) for name, call in calls.items()}), flush=True)


if __name__ == "__main__":
    main()
