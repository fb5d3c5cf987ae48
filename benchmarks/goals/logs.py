"""Whether the end of a long log costs the same wherever its reader begins."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from celery import Celery
from sqlalchemy import insert

from benchmarks.goals.goal import Goal, at_most
from qhana_taskstate import ProcessingTask, TaskState
from qhana_taskstate.database.tables.log import log_table
from qhana_taskstate.store.log import entries
from qhana_taskstate.testing.sql_server import SqlServer

#: Characters of a line, and of what the reader does not know yet.
_LINE, _UNKNOWN = 100, 10_000
_ROUNDS: Final = 5


def measure(server: SqlServer | None, folder: Path, *, megabytes: int) -> list[Goal]:
    """Compare reading what follows an offset where the log was a tenth as long, half as long, and long."""
    url = server.create_database() if server else f"sqlite:///{folder}/log.db"
    name = "PostgreSQL" if server else "SQLite"
    taskstate = TaskState(Celery("logs", broker="memory://"), database_url=url)
    taskstate.upgrade()
    lines = megabytes * 1_000_000 // _LINE
    task = ProcessingTask("logs")
    task.save(commit=True)
    line = {"task_id": task.id, "text": "x" * (_LINE - 1), "glued": False}
    with taskstate.database.transaction() as connection:
        for _ in range(lines // 1000):
            connection.execute(insert(log_table), [line] * 1000)
    with taskstate.database.reading() as connection:
        characters = entries.read_after(connection, task.id, lines * _LINE - 1000)[1]
        whole = _seconds(lambda: entries.read(connection, task.id))
        tails, ends = (
            [_seconds(lambda: entries.read_after(connection, task.id, after)) for _ in range(_ROUNDS)]  # noqa: B023
            for after in (characters - _UNKNOWN, characters)
        )
    taskstate.close()
    return [
        at_most(
            f"what follows in a log of {megabytes} MB, of what follows at its end ({name})",
            [tail / end for tail, end in zip(tails, ends, strict=True)],
            1.5,
        ),
        at_most(
            f"what follows in a log of {megabytes} MB, of reading it whole ({name})",
            [tail / whole for tail in tails],
            0.25,
        ),
    ]


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
