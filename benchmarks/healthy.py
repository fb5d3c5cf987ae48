"""Prove at full length that a healthy task is never given up, with the default settings.

`python -m benchmarks.healthy` runs tasks in which nothing beats for minutes: C code holds the interpreter, the database
is away, a plugin's change stays uncommitted. One worker runs them and another one observes; on PostgreSQL this process
observes too, as from another machine, where only the lock in the database proves life. It prints a table and exits with
1 if a task was given up or did not succeed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from unittest import mock

from celery import Celery, signature
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from qhana_taskstate import DatabaseUnavailableError, TaskState
from qhana_taskstate.database.tables.executions import execution_table
from qhana_taskstate.database.tables.jobs import job_table
from qhana_taskstate.database.tables.upkeep import upkeep_table
from qhana_taskstate.settings.values import Settings
from qhana_taskstate.testing.container import LocalWorker
from qhana_taskstate.testing.postgres_server import PostgresServer
from qhana_taskstate.testing.redis_server import RedisServer
from qhana_taskstate.testing.waiting import wait_until
from qhana_taskstate.upkeep import round as upkeep_round

ROOT = Path(__file__).resolve().parent.parent
APP = "tests.apps.crash:app"
KINDS = ("postgresql", "sqlite")

#: Seconds that the interpreter is held, that the database is away, that its task goes on when it is back, and that a
#: change stays uncommitted.
HELD, AWAY, BACK, UNCOMMITTED = 120.0, 300.0, 60.0, 120.0

#: Seconds beyond its length after which a task counts as stuck, and between two looks of this process.
_PATIENCE, _LOOK = 60.0, 5.0

#: Seconds by which a task may seem shorter than it is: its beginning is seen a little late.
_IMPRECISION = 1.0


@dataclass
class Row:
    """What came of one case.

    Attributes:
        database: Kind of database.
        case: What was done.
        expected: Seconds that the task takes by itself.
        seconds: Seconds from its beginning to its end.
        status: How it ended.
        states: The states in which its execution was seen, in that order.
        losses: How often its worker was taken for lost.
        looks: How often this process looked for lost work, and could.
    """

    database: str
    case: str
    expected: float
    seconds: float = 0.0
    status: str = "never ended"
    states: list[str] = field(default_factory=list)
    losses: int = 0
    looks: int = 0

    @property
    def healthy(self) -> bool:
        """Whether it succeeded, and nobody took it for lost."""
        return (
            self.status == "SUCCESS"
            and not self.losses
            and set(self.states) <= {"QUEUED", "RUNNING", "SUCCESS"}
            and self.states[-1:] == ["SUCCESS"]
            and self.seconds >= self.expected - _IMPRECISION
        )


@dataclass
class Site:
    """A deployment of one database with a worker that runs tasks and one that observes."""

    kind: str
    taskstate: TaskState
    folder: Path
    server: PostgresServer | None

    def run(self, case: str, task: str, seconds: float, meanwhile: Callable[[], None] = lambda: None) -> Row:
        """Run one task to its end.

        Args:
            case: For the table.
            task: Name of a task of `tests.apps.crash` that takes a folder and seconds.
            seconds: How long it takes by itself.
            meanwhile: Done once it has begun.
        """
        row = Row(self.kind, case, seconds)
        place = Path(tempfile.mkdtemp(dir=self.folder))
        work = signature(f"tests.apps.crash.{task}", args=(str(place), seconds), app=self.taskstate.app)
        task_id = self.taskstate.start(work).id
        # Nothing of this process may be in the way.
        self.taskstate.session.close()
        wait_until("the task has begun", lambda: (place / "begun").exists(), timeout=_PATIENCE)
        began = looked = time.monotonic()
        meanwhile()
        while time.monotonic() - began < seconds + _PATIENCE and row.status == "never ended":
            if self.kind == "postgresql" and time.monotonic() - looked >= _LOOK:
                looked = time.monotonic()
                row.looks += self.taskstate.upkeep() is not None
            self._look(task_id, row)
            row.seconds = time.monotonic() - began
            time.sleep(0.25)
        return row

    def _look(self, task_id: int, row: Row) -> None:
        executions = select(execution_table.c.state, execution_table.c.losses)
        end = select(job_table.c.end_status).where(job_table.c.task_id == task_id)
        try:
            with self.taskstate.database.reading() as connection:
                # The end first: what is read of the execution afterwards is of no earlier moment.
                status = connection.execute(end).scalar_one()
                (found,) = connection.execute(executions.where(execution_table.c.task_id == task_id)).all()
        except (DBAPIError, DatabaseUnavailableError):
            return
        if row.states[-1:] != [found.state]:
            row.states.append(found.state)
        row.losses = max(row.losses, found.losses)
        row.status = status or row.status

    def outage(self, seconds: float) -> None:
        """Take the database away for so long."""
        assert self.server is not None  # noqa: S101  (only PostgreSQL has one; tells the type checker)
        self.server.stop()
        time.sleep(seconds)
        self.server.start()


@contextmanager
def deployed(kind: str) -> Iterator[Site]:
    """Run a Redis, a database and both workers, all with the default settings."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = stack.enter_context(RedisServer())
        server = stack.enter_context(PostgresServer()) if kind == "postgresql" else None
        database_url = server.create_database() if server is not None else f"sqlite:///{folder / 'taskstate.db'}"
        app = Celery("healthy", broker=redis.database_url(0), backend=redis.database_url(1))
        app.conf.task_default_queue = "crash"
        taskstate = TaskState(app, database_url=database_url)
        stack.callback(app.close)
        stack.callback(taskstate.database.dispose)
        app.set_current()
        taskstate.upgrade()
        environment: dict[str, str | None] = dict.fromkeys(name for name in os.environ if name.startswith("TASKSTATE_"))
        environment |= {
            "CELERY_BROKER_URL": redis.database_url(0),
            "CELERY_RESULT_BACKEND": redis.database_url(1),
            "TASKSTATE_DATABASE_URL": database_url,
        }
        # Who does the chores first goes on doing them: never the process whose task is judged.
        for queue in ("observers", "crash"):
            command = LocalWorker.command(application=APP, pool="prefork", concurrency=1, queues=queue)
            worker = LocalWorker(command, folder=folder / queue, env=environment, cwd=ROOT)
            stack.callback(worker.remove)
            worker.start()
            worker.ready()
            wait_until("the first worker does the chores", lambda: _has_leader(taskstate), timeout=_PATIENCE)
        yield Site(kind, taskstate, folder, server)


def _has_leader(taskstate: TaskState) -> bool:
    with taskstate.database.reading() as connection:
        return connection.execute(select(upkeep_table)).first() is not None


def cases(kind: str, scale: float) -> list[Row]:
    """Run all cases of one kind of database, one after the other."""
    rows = []
    with ExitStack() as stack:
        site = stack.enter_context(deployed(kind))
        if kind == "postgresql":
            # As on another machine, from where no process can be asked.
            stack.enter_context(mock.patch.object(upkeep_round, "is_alive", return_value=False))
        rows.append(site.run("C code holds the interpreter", "holds_the_interpreter", HELD * scale))
        if kind == "postgresql":
            away = AWAY * scale
            rows.append(
                site.run("the database is away", "lasts", away + BACK * scale, meanwhile=lambda: site.outage(away))
            )
        rows.append(site.run("a change is not committed", "keeps_a_write_open", UNCOMMITTED * scale))
    return rows


def main() -> int:
    """Run the cases; see `--help`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.healthy", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="lengthens or shortens everything (default 1)")
    parser.add_argument("--databases", nargs="+", choices=KINDS, default=list(KINDS), help="kinds")
    parser.add_argument("--one", choices=KINDS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps([asdict(row) for row in cases(arguments.one, arguments.scale)]))
        return 0
    settings = Settings()
    print(f"heartbeat {settings.heartbeat_seconds:g} s, lost after {settings.lost_after_seconds:g} s", flush=True)
    # Side by side, since they mostly wait; in processes of their own, since an app belongs to a process.
    command = [sys.executable, "-m", "benchmarks.healthy", "--scale", str(arguments.scale), "--one"]
    running = [
        subprocess.Popen([*command, kind], cwd=ROOT, stdout=subprocess.PIPE, text=True)  # noqa: S603  (our own)
        for kind in arguments.databases
    ]
    # Both are waited for before anything is judged: each has servers to stop.
    written = [process.communicate()[0] for process in running]
    rows = [
        Row(**values)
        for process, text in zip(running, written, strict=True)
        if process.returncode == 0
        for values in json.loads(text)
    ]
    print(
        f"{'database':<11} {'case':<29} {'at least':>8} {'seconds':>8} {'status':<11} {'losses':>6} {'looks':>5} states"
    )
    for row in rows:
        print(
            f"{row.database:<11} {row.case:<29} {row.expected:>8.1f} {row.seconds:>8.1f} {row.status:<11}"
            f" {row.losses:>6} {row.looks:>5} {', '.join(row.states)}"
        )
    return 0 if all(row.healthy for row in rows) and not any(process.returncode for process in running) else 1


if __name__ == "__main__":
    sys.exit(main())
