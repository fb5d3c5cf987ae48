"""Whether any worker consumes the queues in which work waits; asked while somebody watches."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from celery import Celery

from ..broker.connection import brief_connection
from ..reading.rows.views import TaskView

logger = logging.getLogger(__name__)

#: For how long work waits in a queue before workers are asked, in seconds.
PATIENCE_SECONDS: Final = 3.0

#: Pause between two questions, in seconds.
_PAUSE_SECONDS: Final = 10.0

#: For how long the broker and the workers are waited for, in seconds.
_ANSWER_SECONDS: Final = 1

#: What is said where nobody answers.
NO_WORKER: Final = "no worker answers; start one: celery -A worker worker"

#: Returns the names of the queues that workers consume; None if no worker answered.
Ask = Callable[[], set[str] | None]


def consumed_queues(app: Celery) -> set[str] | None:
    """Ask the workers which queues they consume; takes about a second.

    Returns:
        Names of queues; None if no worker answered in time.

    Raises:
        Exception: Whatever kombu, redis or the socket raise if the broker cannot be reached.
    """
    with brief_connection(app, _ANSWER_SECONDS) as connection:
        answers = app.control.inspect(timeout=_ANSWER_SECONDS, connection=connection).active_queues()
    if not answers:
        return None
    return {str(queue["name"]) for queues in answers.values() for queue in queues or ()}


class Attendance:
    """What is known of the workers that tasks wait for.

    Args:
        ask: Asks the workers; called in a thread of its own.
        works: Tells whether anything runs now, so that a worker is there although it may be too busy to answer (the
            solo pool).
    """

    def __init__(self, ask: Ask, works: Callable[[], bool]) -> None:
        self._ask = ask
        self._works = works
        self._thread: threading.Thread | None = None
        self._asked_at: float | None = None
        #: None until somebody was asked.
        self._trouble: Callable[[TaskView], str] | None = None

    def see(self, tasks: Sequence[TaskView], moment: datetime) -> list[TaskView]:
        """Return the tasks, with a word about those for whose work no worker is there, as far as is known.

        Asks anew, in the background, if one of them has waited for a few seconds; waits for nothing.

        Args:
            tasks: What is watched.
            moment: Now, aware.
        """
        waiting = [task for task in tasks if waits_long(task, moment)]
        if not waiting:
            self._trouble = None
            return list(tasks)
        busy = self._thread is not None and self._thread.is_alive()
        if not busy and (self._asked_at is None or time.monotonic() - self._asked_at >= _PAUSE_SECONDS):
            self._asked_at = time.monotonic()
            self._thread = threading.Thread(target=self.ask, name="qhana_taskstate-attendance", daemon=True)
            self._thread.start()
        return self.told(tasks, moment)

    def ask(self) -> None:
        """Ask now, and wait for the answer."""
        try:
            if self._works():
                self._trouble = None
                return
            queues = self._ask()
        except Exception as exc:
            # Whatever the drivers of brokers and databases raise: what is watched is told all the same.
            logger.debug("workers could not be asked: %s", exc)
            self._trouble = lambda task: "the broker does not answer"
            return
        self._trouble = (lambda task: NO_WORKER) if queues is None else (lambda task: _alone(task, queues))

    def told(self, tasks: Sequence[TaskView], moment: datetime) -> list[TaskView]:
        """Return the tasks with what is known of their workers."""
        trouble = self._trouble
        if trouble is None:
            return list(tasks)
        return [
            replace(task, activity=task.activity.troubled(trouble(task))) if waits_long(task, moment) else task
            for task in tasks
        ]


def waits_long(task: TaskView, moment: datetime) -> bool:
    """Tell whether work of a task waits in a queue for so long that a worker should have taken it."""
    since = task.activity.waiting_since
    return since is not None and (moment - since).total_seconds() >= PATIENCE_SECONDS


def _alone(task: TaskView, consumed: set[str]) -> str:
    return "; ".join(f"nobody consumes queue {queue}" for queue in task.activity.queues if queue not in consumed)
