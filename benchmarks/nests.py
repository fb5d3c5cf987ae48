"""Run random nests of canvases on a real worker, and compare each end with what plain recursion says.

`python -m benchmarks.nests --nests 2000 --seed S` prints a table and exits with 1 if a task ended wrong, twice, too
early, or never.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from sqlalchemy import case, func, select

from qhana_taskstate import ProcessingTask, TaskState
from qhana_taskstate.clock import now
from qhana_taskstate.database.tables.executions import execution_table
from qhana_taskstate.database.tables.jobs import job_table
from qhana_taskstate.testing.container import LocalWorker
from qhana_taskstate.testing.mariadb_server import MariaDBServer
from qhana_taskstate.testing.postgres_server import PostgresServer
from qhana_taskstate.testing.redis_server import RedisServer
from tests.apps.factory import make_app
from tests.apps.nests import Tree, build, leaves, messages, random_tree, succeeds

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Report:
    """What came of a run.

    Attributes:
        ends: How many tasks ended with each status.
        messages: How many executions there were.
        wrong: Tasks whose status is not the predicted one.
        stuck: Tasks that did not end in time.
        early: Tasks that were SUCCESS while an execution of theirs was open.
        twice: Tasks whose end changed after it was first seen.
        left_open: Executions that never closed, of tasks that ended.
        miscounted: Tasks with more or fewer executions than their tree takes: some were taken for one.
        seconds: How long it took.
    """

    ends: Counter[str] = field(default_factory=Counter)
    messages: int = 0
    wrong: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    early: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    left_open: list[str] = field(default_factory=list)
    miscounted: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def faults(self) -> list[str]:
        """Everything that must not be, one line each."""
        found = {
            "wrong": self.wrong,
            "stuck": self.stuck,
            "too early": self.early,
            "twice": self.twice,
            "left open": self.left_open,
            "miscounted": self.miscounted,
        }
        return [f"{kind}: {line}" for kind, lines in found.items() for line in lines]


class Run:
    """One run of trees against a worker that knows `tests.apps.nests`.

    Args:
        taskstate: The client's side.
        patience: Seconds without a change of its executions after which a task counts as stuck; on a busy machine a
            long chain may take longer than that as a whole.
    """

    def __init__(self, taskstate: TaskState, *, patience: float = 60.0) -> None:
        self._taskstate = taskstate
        self._patience = patience
        self._report = Report()
        self._trees: dict[int, Tree] = {}
        self._started: dict[int, float] = {}
        self._seen: dict[int, tuple[str, datetime]] = {}
        self._early: set[int] = set()

    def __call__(self, trees: list[Tree], *, at_once: int = 40) -> Report:
        """Start the trees, at most so many at once, and watch them to their ends."""
        began = time.monotonic()
        waiting = list(reversed(trees))
        while waiting or self._started:
            while waiting and len(self._started) < at_once:
                tree = waiting.pop()
                task = self._taskstate.start(build(tree), task_name="nest")
                self._trees[task.id] = tree
                self._started[task.id] = time.monotonic()
            self._look()
            time.sleep(0.02)
        self._drain()
        self._compare()
        self._report.seconds = time.monotonic() - began
        return self._report

    def _look(self) -> None:
        """Note in one look, so of one instant, what ended and what of it is open."""
        still_open = (
            select(execution_table.c.celery_id)
            .where(execution_table.c.task_id == job_table.c.task_id, execution_table.c.closed_at.is_(None))
            .exists()
        )
        query = select(
            job_table.c.task_id, job_table.c.end_status, job_table.c.ended_at, still_open.label("open")
        ).where(job_table.c.end_status.is_not(None), job_table.c.task_id.in_(list(self._started)))
        with self._taskstate.database.reading() as connection:
            rows = connection.execute(query).all()
        for row in rows:
            self._seen[row.task_id] = (row.end_status, row.ended_at)
            self._started.pop(row.task_id)
            if row.open and row.end_status == "SUCCESS":
                self._early.add(row.task_id)
        for task_id, started in list(self._started.items()):
            if time.monotonic() - started <= self._patience:
                continue
            still = self._still_for(task_id)
            if still <= self._patience:
                self._started[task_id] = time.monotonic() - still
                continue
            self._started.pop(task_id)
            self._report.stuck.append(self._line(task_id, f"no end, and no change for {still:.0f} s"))

    def _still_for(self, task_id: int) -> float:
        """Return for how many seconds nothing has begun or ended of a task."""
        query = select(func.max(execution_table.c.started_at), func.max(execution_table.c.closed_at))
        with self._taskstate.database.reading() as connection:
            changes = connection.execute(query.where(execution_table.c.task_id == task_id)).one()
        last = max((moment for moment in changes if moment is not None), default=None)
        return (now() - last).total_seconds() if last is not None else float("inf")

    def _drain(self) -> None:
        """Wait until what still runs of failed tasks has closed."""
        deadline = time.monotonic() + self._patience
        query = select(execution_table.c.task_id, func.count()).where(
            execution_table.c.closed_at.is_(None), execution_table.c.task_id.in_(list(self._seen))
        )
        while True:
            with self._taskstate.database.reading() as connection:
                rows = connection.execute(query.group_by(execution_table.c.task_id)).all()
            if not rows:
                return
            if time.monotonic() > deadline:
                self._report.left_open = [self._line(row[0], f"{row[1]} executions open") for row in rows]
                return
            time.sleep(0.05)

    def _compare(self) -> None:
        report = self._report
        with self._taskstate.database.reading() as connection:
            jobs = {
                row.task_id: row
                for row in connection.execute(
                    select(job_table.c.task_id, job_table.c.end_status, job_table.c.ended_at).where(
                        job_table.c.task_id.in_(list(self._trees))
                    )
                )
            }
            closes = {
                row.task_id: row
                for row in connection.execute(
                    select(
                        execution_table.c.task_id,
                        func.count().label("messages"),
                        func.count(case((execution_table.c.name.not_like("celery.%"), 1))).label("members"),
                        func.max(execution_table.c.closed_at).label("last"),
                    )
                    .where(execution_table.c.task_id.in_(list(self._trees)))
                    .group_by(execution_table.c.task_id)
                )
            }
        for task_id, (status, ended_at) in self._seen.items():
            report.ends[status] += 1
            report.messages += closes[task_id].messages
            predicted = "SUCCESS" if succeeds(self._trees[task_id]) else "ERROR"
            row = ProcessingTask.get_by_id(task_id)
            shown = row.status if row is not None else None
            if status != predicted or shown != predicted:
                report.wrong.append(self._line(task_id, f"{status}, shown as {shown}, must be {predicted}"))
            if (jobs[task_id].end_status, jobs[task_id].ended_at) != (status, ended_at):
                report.twice.append(self._line(task_id, f"{status} first, then {jobs[task_id].end_status}"))
            expected = messages(self._trees[task_id])
            if expected not in (None, closes[task_id].members):
                report.miscounted.append(
                    self._line(task_id, f"{closes[task_id].members} executions, must be {expected}")
                )
            if status == "SUCCESS" and closes[task_id].last > ended_at:
                self._early.add(task_id)
        report.early = [self._line(task_id, "an execution closed later") for task_id in sorted(self._early)]

    def _line(self, task_id: int, what: str) -> str:
        return f"task {task_id}: {what}: {json.dumps(self._trees[task_id])}"


def random_trees(seed: int, count: int, *, depth: int = 3, failing: float = 0.06) -> list[Tree]:
    """Make trees; the same ones for the same arguments."""
    source = random.Random(seed)  # noqa: S311  (a repeatable run, no secret)
    return [random_tree(source, source.randint(1, depth), failing=failing) for _ in range(count)]


@contextmanager
def deployed(kind: str, concurrency: int) -> Iterator[TaskState]:
    """Run a Redis, a database and a prefork worker, and give the client's side of them."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = stack.enter_context(RedisServer())
        if kind == "postgresql":
            database_url = stack.enter_context(PostgresServer()).create_database()
        elif kind == "mariadb":
            database_url = stack.enter_context(MariaDBServer()).create_database()
        else:
            database_url = f"sqlite:///{folder / 'taskstate.db'}"
        app, taskstate = make_app(redis.database_url(0), redis.database_url(1), database_url)
        app.set_current()
        taskstate.upgrade()
        worker = LocalWorker(
            LocalWorker.command(
                "-I", "tests.apps.nests", application="tests.apps.worker:app", pool="prefork", concurrency=concurrency
            ),
            folder=folder,
            env={
                "CELERY_BROKER_URL": redis.database_url(0),
                "CELERY_RESULT_BACKEND": redis.database_url(1),
                "TASKSTATE_DATABASE_URL": database_url,
            },
            cwd=ROOT,
        )
        stack.callback(app.close)
        stack.callback(taskstate.database.dispose)
        stack.callback(worker.remove)
        worker.start()
        worker.ready()
        yield taskstate


def main() -> int:
    """Run the nests; see `--help`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nests", description=__doc__)
    parser.add_argument("--nests", type=int, default=2000, help="how many tasks (default 2000)")
    parser.add_argument("--seed", type=int, default=None, help="for the same trees again (default: a new one)")
    parser.add_argument("--depth", type=int, default=3, help="how deep they nest at most (default 3)")
    parser.add_argument("--failing", type=float, default=0.06, help="how likely a leaf fails (default 0.06)")
    parser.add_argument("--at-once", type=int, default=40, help="tasks under way at the same time (default 40)")
    parser.add_argument("--concurrency", type=int, default=2, help="processes of the worker (default 2)")
    parser.add_argument("--database", choices=["postgresql", "mariadb", "sqlite"], default="postgresql")
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if arguments.seed is None else arguments.seed
    trees = random_trees(seed, arguments.nests, depth=arguments.depth, failing=arguments.failing)
    print(f"seed {seed}: {len(trees)} nests, {sum(map(leaves, trees))} leaves at most", flush=True)
    with deployed(arguments.database, arguments.concurrency) as taskstate:
        report = Run(taskstate)(trees, at_once=arguments.at_once)
    for fault in report.faults:
        print(fault)
    counts: dict[str, object] = {
        "nests": len(trees),
        "SUCCESS": report.ends["SUCCESS"],
        "ERROR": report.ends["ERROR"],
        "executions": report.messages,
        "wrong": len(report.wrong),
        "stuck": len(report.stuck),
        "too early": len(report.early),
        "ended twice": len(report.twice),
        "left open": len(report.left_open),
        "miscounted": len(report.miscounted),
        "seconds": round(report.seconds, 1),
    }
    for name, value in counts.items():
        print(f"{name:<12} {value:>8}")
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
