"""Waits for the end of a task: one quick look, repeated."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, select

from ...database.engine import Database
from ...database.tables.runner import step_table, task_table
from ...errors import TaskNotFoundError
from ...states import still_pending
from ...store.task.steps import is_open_step

#: Pauses in seconds between two looks: quick at first, then gentle to the database.
_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.5


@dataclass(frozen=True, slots=True)
class Glance:
    """What `wait` looks at.

    Attributes:
        finished: The task has ended.
        waiting: It waits at a step for input.
    """

    finished: bool
    waiting: bool


def glance(connection: Connection, task_id: int) -> Glance | None:
    """Look at a task; None if there is no such row."""
    row = connection.execute(select(task_table.c.finished_at).where(task_table.c.id == task_id)).one_or_none()
    if row is None:
        return None
    step = connection.execute(select(step_table.c.number).where(is_open_step(task_id)).limit(1)).first()
    return Glance(finished=row.finished_at is not None, waiting=step is not None)


def wait_for_end(
    database: Database,
    task_id: int,
    timeout: float | None,
    *,
    or_step: bool,
    named: object,
    look_after: Callable[[], object],
    look_after_seconds: float,
) -> None:
    """Return once a task has ended.

    Args:
        database: Where to look.
        task_id: Id of the task.
        timeout: Seconds to wait at most; None waits without limit.
        or_step: Also return when the task waits at a step for input.
        named: The task as the caller named it, for the error.
        look_after: Called now and then, so that a task whose last worker died ends although no worker is left to see
            it.
        look_after_seconds: Seconds between two such calls.

    Raises:
        TimeoutError: If it has not ended in time; names the status seen.
        TaskNotFoundError: If there is no such task.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    pause = _FIRST_PAUSE
    looked = time.monotonic()
    while True:
        seen = database.read(lambda connection: glance(connection, task_id))
        if seen is None:
            raise TaskNotFoundError(named)
        if seen.finished or (or_step and seen.waiting):
            return
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise still_pending(task_id, timeout)
        time.sleep(pause if left is None else min(pause, left))
        pause = min(pause * 1.5, _LONGEST_PAUSE)
        if time.monotonic() - looked >= look_after_seconds:
            looked = time.monotonic()
            look_after()
