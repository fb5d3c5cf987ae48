"""Waits for the ends of many tasks at once: one thread, which asks for all of them in one query."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection, exists, select

from ...database.tables.runner import step_table, task_table
from ...errors import TaskStateError
from ...fork import call_in_child
from ...store.task.steps import is_uncleared
from .one import Glance

#: Pauses in seconds between two looks: quick while somebody new waits, then gentle to the database.
_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.5
#: A pause is at least so many times as long as the look before it took.
_PAUSES_PER_LOOK: Final = 5.0
#: How many tasks one query names.
_MOST_IDS: Final = 500

#: Looks at tasks by their ids; those that there are not are not in what it returns.
Look = Callable[[Collection[int]], Mapping[int, Glance]]


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    task_id: int
    or_step: bool
    ended: Future[Glance | None] = field(default_factory=Future)


def glances(connection: Connection, task_ids: Collection[int]) -> dict[int, Glance]:
    """Look at several tasks."""
    waiting = exists().where(step_table.c.id == task_table.c.id, is_uncleared())
    query = select(task_table.c.id, task_table.c.finished_at, waiting.label("waiting"))
    ids = sorted(task_ids)
    found: dict[int, Glance] = {}
    for begin in range(0, len(ids), _MOST_IDS):
        for row in connection.execute(query.where(task_table.c.id.in_(ids[begin : begin + _MOST_IDS]))):
            found[row.id] = Glance(finished=row.finished_at is not None, waiting=bool(row.waiting))
    return found


class Waiters:
    """Those who wait in this process without a thread of their own. Its thread lives as long as somebody waits.

    Args:
        look: Looks at tasks; what it raises is raised to all who wait.
        look_after: Called now and then, so that a task whose last worker died ends although no worker is left to see
            it.
        look_after_seconds: Seconds between two such calls.
    """

    def __init__(self, look: Look, look_after: Callable[[], object], look_after_seconds: float) -> None:
        self._look = look
        self._look_after = look_after
        self._look_after_seconds = look_after_seconds
        self._looked_after = 0.0
        self._begin_anew()
        call_in_child(self._begin_anew)

    def _begin_anew(self) -> None:
        self._guard = threading.Lock()
        self._new = threading.Event()
        self._waiters: list[_Waiter] = []
        self._thread: threading.Thread | None = None

    def wait(self, task_id: int, *, or_step: bool) -> Future[Glance | None]:
        """Begin to wait for the end of a task; cancel what is returned to wait no longer.

        Args:
            task_id: Id of the task.
            or_step: Also until it waits at a step for input.

        Returns:
            What was seen in the end; None if there is no such task.
        """
        waiter = _Waiter(task_id, or_step)
        with self._guard:
            self._waiters.append(waiter)
            self._new.set()
            if self._thread is None:
                self._looked_after = time.monotonic()
                self._thread = threading.Thread(target=self._run, name="taskstate-waiters", daemon=True)
                self._thread.start()
        return waiter.ended

    def close(self) -> None:
        """End every wait with an error, and with them the thread."""
        with self._guard:
            waiters, thread = list(self._waiters), self._thread
        _fail(waiters, TaskStateError("this TaskState was closed while somebody waited for a task; wait again"))
        self._new.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_LONGEST_PAUSE)

    def _still_waiting(self) -> list[_Waiter]:
        """Return who still waits, and let the thread go if nobody does."""
        with self._guard:
            self._new.clear()
            self._waiters = [waiter for waiter in self._waiters if not waiter.ended.done()]
            if not self._waiters:
                self._thread = None
            return list(self._waiters)

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while waiters := self._still_waiting():
            begun = time.monotonic()
            self._tell(waiters)
            if self._new.wait(max(pause, _PAUSES_PER_LOOK * (time.monotonic() - begun))):
                # Not at once: many who come one after the other are looked at together.
                pause = _FIRST_PAUSE
                time.sleep(pause)
            else:
                pause = min(pause * 1.5, _LONGEST_PAUSE)
            if time.monotonic() - self._looked_after >= self._look_after_seconds:
                self._looked_after = time.monotonic()
                self._look_after()

    def _tell(self, waiters: Iterable[_Waiter]) -> None:
        try:
            seen = self._look({waiter.task_id for waiter in waiters})
        except Exception as exc:  # whoever waits is told, as by `wait`
            _fail(waiters, exc)
            return
        for waiter in waiters:
            glance = seen.get(waiter.task_id)
            over = glance is None or glance.finished or (waiter.or_step and glance.waiting)
            if over and waiter.ended.set_running_or_notify_cancel():
                waiter.ended.set_result(glance)


def _fail(waiters: Iterable[_Waiter], exc: Exception) -> None:
    for waiter in waiters:
        if not waiter.ended.done() and waiter.ended.set_running_or_notify_cancel():
            waiter.ended.set_exception(exc)
