"""Looks once a second for changes of the tasks that open streams show: one query for all of them together."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

from ...errors import TaskStateError
from ...facade import TaskState
from ...models.task import ProcessingTask
from .mark import Mark, read_marks

logger = logging.getLogger(__name__)

#: Seconds between two looks.
LOOK_SECONDS: Final = 1.0

#: The most streams at once; each costs a place in a list and an open connection.
MOST_STREAMS: Final = 2000


class Watch:
    """What one open stream waits for, kept for as long as the stream.

    Attributes:
        task_ids: The tasks that it shows.
        newest: Whether it also wants to know of new tasks.
    """

    def __init__(self, task_ids: Iterable[int], *, newest: bool) -> None:
        self.task_ids = frozenset(task_ids)
        self.newest = newest
        self._news: queue.Queue[Look] = queue.Queue(maxsize=1)

    def put(self, look: Look) -> None:
        """Hand over what was seen; what was not fetched before is replaced."""
        with suppress(queue.Empty):
            self._news.get_nowait()
        self._news.put_nowait(look)

    def get(self, seconds: float) -> Look | None:
        """Return what was seen last, waiting for it; None if nothing comes in time."""
        try:
            return self._news.get(timeout=seconds)
        except queue.Empty:
            return None


class Look:
    """What was seen at one moment.

    Attributes:
        marks: By id of the task; one that is missing was deleted.
        newest: Largest id of a task.
    """

    def __init__(self, marks: dict[int, Mark], newest: int) -> None:
        self.marks = marks
        self.newest = newest


class Watcher:
    """Tells open streams what there is. Has a thread only while a stream is open.

    Args:
        taskstate: Returns the `TaskState`.
        seconds: Between two looks.
    """

    def __init__(self, taskstate: Callable[[], TaskState], *, seconds: float = LOOK_SECONDS) -> None:
        self._taskstate = taskstate
        self._seconds = seconds
        self._guard = threading.Lock()
        self._watches: set[Watch] = set()
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        return len(self._watches)

    def begin(self, watch: Watch) -> bool:
        """Let a stream be told from now on; False if there are too many."""
        with self._guard:
            if len(self._watches) >= MOST_STREAMS:
                return False
            self._watches.add(watch)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="taskstate-watcher", daemon=True)
                self._thread.start()
        return True

    def end(self, watch: Watch) -> None:
        """Forget a stream."""
        with self._guard:
            self._watches.discard(watch)

    def _run(self) -> None:
        while True:
            with self._guard:
                watches = list(self._watches)
                if not watches:
                    self._thread = None
                    return
            try:
                self._tell(watches)
            except (DBAPIError, TaskStateError) as exc:
                # The streams stay open, and are told when it is back.
                logger.warning("open streams are told later: the database cannot be read: %s", type(exc).__name__)
            except BaseException:
                with self._guard:
                    self._thread = None
                raise
            time.sleep(self._seconds)

    def _tell(self, watches: list[Watch]) -> None:
        wanted = frozenset[int]().union(*(watch.task_ids for watch in watches))
        with self._taskstate().database.reading() as connection:
            marks = read_marks(connection, wanted)
            newest = 0
            if any(watch.newest for watch in watches):
                newest = connection.execute(select(func.max(ProcessingTask.id))).scalar() or 0
        for watch in watches:
            watch.put(Look(marks, newest))
