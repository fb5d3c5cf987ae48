"""Compare tracked no-op tasks with bare ones, side by side in one run: only the ratios mean something."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis
from sqlalchemy import create_engine, text

from qhana_taskstate.testing.container import LocalWorker
from qhana_taskstate.testing.postgres_server import PostgresServer
from qhana_taskstate.testing.redis_server import RedisServer
from qhana_taskstate.testing.waiting import wait_until

ROOT = Path(__file__).resolve().parent.parent
QUEUE = "benchmarks"


@dataclass(frozen=True)
class Round:
    """One round: the same number of tasks bare and tracked, in tasks a second."""

    bare: float
    tracked: float

    @property
    def ratio(self) -> float:
        """Tracked over bare."""
        return self.tracked / self.bare


def main() -> int:
    """Run the benchmark; see `--help`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--tasks", type=int, default=600, help="tasks in each half of a round (default 600)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, of which the median counts (default 5)")
    parser.add_argument(
        "--databases", nargs="+", choices=["postgresql", "sqlite"], default=["postgresql", "sqlite"], help="kinds"
    )
    parser.add_argument("--one", nargs=2, metavar=("BROKER_URL", "DATABASE_URL"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        _measure(*arguments.one, tasks=arguments.tasks, rounds=arguments.rounds)
        return 0
    with ExitStack() as stack:
        broker = stack.enter_context(RedisServer())
        for number, kind in enumerate(arguments.databases):
            with _database(kind) as url:
                print(f"{kind}:", flush=True)
                # A process of its own for each kind: an app and its settings belong to a process.
                command = [sys.executable, "-m", "benchmarks", "--one", broker.database_url(number), url]
                command += ["--tasks", str(arguments.tasks), "--rounds", str(arguments.rounds)]
                if subprocess.run(command, cwd=ROOT, check=False).returncode:  # noqa: S603
                    return 1
    return 0


@contextmanager
def _database(kind: str) -> Iterator[str]:
    if kind == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{folder}/taskstate.db"
    else:
        with PostgresServer() as server:
            yield server.create_database()


def _measure(broker_url: str, database_url: str, *, tasks: int, rounds: int) -> None:
    environment = {"CELERY_BROKER_URL": broker_url, "TASKSTATE_DATABASE_URL": database_url}
    os.environ.update(environment)
    from benchmarks import app as module  # the app reads the environment when it is imported

    module.taskstate.upgrade()
    with tempfile.TemporaryDirectory() as folder:
        worker = LocalWorker(
            LocalWorker.command(application="benchmarks.app:app", pool="prefork", concurrency=2),
            folder=Path(folder),
            env=dict(environment),
            cwd=ROOT,
        )
        worker.start()
        try:
            worker.ready()
            through = [_through_workers(module, broker_url, tasks) for _ in range(rounds + 1)][1:]
            started = [_started(module, database_url, min(tasks, 300)) for _ in range(rounds + 1)][1:]
        finally:
            worker.remove()
    _tell("rate through the workers, tracked / bare", through)
    _tell("start / bare publish after one committed INSERT", started)


def _tell(what: str, rounds: list[Round]) -> None:
    ratios = sorted(round_.ratio for round_ in rounds)
    bare = statistics.median(round_.bare for round_ in rounds)
    tracked = statistics.median(round_.tracked for round_ in rounds)
    print(
        f"  {what}: {statistics.median(ratios):.2f}  (from {ratios[0]:.2f} to {ratios[-1]:.2f};"
        f" {tracked:.0f} and {bare:.0f} a second)",
        flush=True,
    )


def _through_workers(module: object, broker_url: str, tasks: int) -> Round:
    app, taskstate = module.app, module.taskstate  # type: ignore[attr-defined]
    client = redis.Redis.from_url(broker_url)
    bare = _drained(app, client, tasks, module.bare.delay)  # type: ignore[attr-defined]
    last: list[int] = []
    tracked = _drained(
        app,
        client,
        tasks,
        lambda: last.append(taskstate.start(module.tracked.s()).id),  # type: ignore[attr-defined]
    )
    for task_id in last[-8:]:
        if taskstate.wait(task_id, timeout=30).status != "SUCCESS":
            raise SystemExit(f"task {task_id} did not end as SUCCESS")
    return Round(bare, tracked)


def _drained(app: object, client: redis.Redis, tasks: int, send: Callable[[], object]) -> float:
    """Fill the queue while nobody consumes it, then measure how fast the worker empties it."""
    app.control.cancel_consumer(QUEUE, reply=True)  # type: ignore[attr-defined]
    for _ in range(tasks):
        send()
    began = time.perf_counter()
    app.control.add_consumer(QUEUE)  # type: ignore[attr-defined]
    wait_until(
        "the queue is empty", lambda: not client.llen(QUEUE) and not client.hlen("unacked"), timeout=120, interval=0.005
    )
    return tasks / (time.perf_counter() - began)


def _started(module: object, database_url: str, tasks: int) -> Round:
    app = module.app  # type: ignore[attr-defined]
    app.control.cancel_consumer(QUEUE, reply=True)
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE IF NOT EXISTS plain (id INTEGER PRIMARY KEY, name VARCHAR(100))"))
        connection.execute(text("DELETE FROM plain"))
    began = time.perf_counter()
    for number in range(tasks):
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO plain (id, name) VALUES (:id, 'job')"), {"id": number})
        module.bare.delay()  # type: ignore[attr-defined]
    bare = tasks / (time.perf_counter() - began)
    began = time.perf_counter()
    for _ in range(tasks):
        module.taskstate.start(module.tracked.s())  # type: ignore[attr-defined]
    tracked = tasks / (time.perf_counter() - began)
    engine.dispose()
    app.control.purge()
    return Round(bare, tracked)


if __name__ == "__main__":
    sys.exit(main())
