"""A process that starts plans at a steady rate and answers steps. It may be told to die inside `start`."""

from __future__ import annotations

import argparse
import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from celery.signals import after_task_publish, before_task_publish
from sqlalchemy import event, select
from sqlalchemy.orm import Session

from benchmarks.chaos import HOOK, SEED, STOP
from benchmarks.chaos import app as tasks
from benchmarks.chaos.plans import canvas_of, plan_of
from qhana_taskstate import Step, TaskStateError

#: Seconds between two looks for steps to answer.
_ANSWER_SECONDS: Final = 0.3

#: Moments inside `start` at which it may die.
_STAGES: Final = ("before commit", "after commit", "before publish", "after publish")


class Client:
    """One of several clients that share the plans of a run.

    Args:
        index: Which one.
        count: How many there are.
        rate: Plans to start a second, of all clients together.
        began: When the load began, seconds since the epoch.
        folder: Where it keeps what it did last, and looks for `STOP`.
    """

    def __init__(self, index: int, count: int, rate: float, began: float, folder: Path) -> None:
        self._seed = int(os.environ[SEED])
        self._rate = rate / count
        self._began = began
        self._index, self._count = index, count
        self._stop = folder / STOP
        self._memory = folder / f"client-{index}"
        self._started = int(self._memory.read_text() or 0) if self._memory.exists() else 0
        self._dies_at: str | None = None
        self._publications_left = 0
        self._inside = False

    def run(self) -> None:
        """Start plans until told to stop, and answer steps until killed."""
        self._listen()
        answered = 0.0
        while True:
            due = (time.time() - self._began) * self._rate
            if not self._stop.exists() and self._started < due:
                number = self._index + self._started * self._count
                self._started += 1
                self._memory.write_text(str(self._started))
                self._start(number)
            elif time.monotonic() - answered > _ANSWER_SECONDS:
                answered = time.monotonic()
                self._answer()
            else:
                time.sleep(0.02)

    def _start(self, number: int) -> None:
        plan = plan_of(self._seed, number)
        tasks.notebook.note("starting", number)
        self._inside = True
        options: dict[str, Any] = {}
        hook = os.environ.get(HOOK)
        if hook and plan.subscribes:
            options = {
                "webhook_href": f"{hook}/{number}",
                "task_href": f"http://tasks.test/{number}",
                "event": "status",
            }
        try:
            task = tasks.taskstate.start(canvas_of(plan, tasks), task_name=plan.kind, parameters=str(number), **options)
        except Exception as exc:
            # Whatever it is: the verdict looks at it.
            tasks.notebook.note("refused", number, "-", f"{type(exc).__name__} {exc}")
        else:
            tasks.notebook.note("started", number, "-", str(task.id))
        finally:
            self._inside = False

    def _answer(self) -> None:
        session = tasks.taskstate.session
        try:
            waiting = session.execute(select(Step.id, Step.step_id).where(Step.cleared.is_(False)).limit(20)).all()
            for task_id, step_id in waiting:
                with suppress(TaskStateError):
                    work = tasks.single.si(int(step_id), "answer")
                    tasks.taskstate.start(work, task=task_id, answers=step_id)
        except Exception as exc:
            # The database is away; the session is of no use until it is told so.
            print(f"answers wait: {type(exc).__name__}: {exc}", flush=True)
            with suppress(Exception):
                session.rollback()

    def _listen(self) -> None:
        signal.signal(signal.SIGUSR1, self._prepare_to_die)
        event.listen(Session, "before_commit", lambda _: self._die("before commit"))
        event.listen(Session, "after_commit", lambda _: self._die("after commit"))
        before_task_publish.connect(self._on_before_publish, weak=False)
        after_task_publish.connect(self._on_after_publish, weak=False)

    def _prepare_to_die(self, *_: object) -> None:
        self._dies_at = random.choice(_STAGES)  # noqa: S311  (any will do)
        self._publications_left = random.randint(0, 3)  # noqa: S311

    def _on_before_publish(self, **_: object) -> None:
        self._die("before publish")

    def _on_after_publish(self, **_: object) -> None:
        self._publications_left -= 1
        if self._publications_left <= 0:
            self._die("after publish")

    def _die(self, stage: str) -> None:
        if self._inside and self._dies_at == stage:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Run one client; started by `benchmarks.chaos`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos.client", description=__doc__)
    parser.add_argument("--index", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--began", type=float, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    Client(arguments.index, arguments.count, arguments.rate, arguments.began, arguments.folder).run()


if __name__ == "__main__":
    main()
