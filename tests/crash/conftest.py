"""Settings that let silence count soon, and a client in this process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError

from qhana_taskstate import TaskState
from qhana_taskstate.database.tables.executions import execution_table
from qhana_taskstate.testing.container import LocalWorker
from qhana_taskstate.testing.plugin import StartWorker
from tests import warm
from tests.waiting import wait_until

SOON: dict[str, Any] = {
    "heartbeat_seconds": 0.3,
    "lost_after_seconds": 1.5,
    "hold_seconds": 1.5,
    "flush_interval_seconds": 0.1,
    "max_redeliveries": 2,
}


@dataclass
class Site:
    """A database and a broker of one test, and what may be done there."""

    app: Celery
    taskstate: TaskState
    folder: Path
    environment: dict[str, str]
    _start: StartWorker

    def worker(self, concurrency: int = 1, pool: str = "prefork") -> LocalWorker:
        """Start a worker."""
        return self._start("tests.apps.crash:app", concurrency=concurrency, pool=pool, env=self.environment)

    def begun(self, count: int = 1) -> None:
        """Wait until so many executions have said that they run."""
        path = self.folder / "begun"
        wait_until(
            f"{count} executions have begun",
            lambda: path.exists() and len(path.read_text().splitlines()) >= count,
            timeout=20,
        )

    def freeze(self, worker: LocalWorker) -> None:
        """Freeze a worker between two of its writes: inside one it would keep its locks and let nobody write."""

        def frozen() -> bool:
            worker.freeze()
            if not self._somebody_writes():
                return True
            worker.thaw()
            return False

        wait_until("the worker is frozen between two writes", frozen)

    def _somebody_writes(self) -> bool:
        database = self.taskstate.database
        if database.dialect == "sqlite":
            try:
                with database.transaction(patience=0):
                    return False
            except OperationalError:
                return True
        query = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND state <> 'idle' AND pid <> pg_backend_pid()"
        )
        with database.reading() as connection:
            return bool(connection.execute(text(query)).scalar_one())

    def go(self) -> None:
        """Let what waits end."""
        (self.folder / "go").touch()

    def executions(self, task_id: int) -> list[tuple[str, str, int]]:
        """Return name, state and losses of the executions of a task."""
        with self.taskstate.database.reading() as connection:
            rows = connection.execute(select(execution_table).where(execution_table.c.task_id == task_id)).all()
        return sorted((row.name.rpartition(".")[2], row.state, row.losses) for row in rows)

    def client(self, code: str) -> None:
        """Run code in a client process of its own."""
        warm.run([sys.executable, "-c", code], env=self._environment_of_client(), check=True, timeout=60)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of `celery taskstate`."""
        command = [sys.executable, "-m", "celery", "-A", "tests.apps.crash:app", "taskstate", *arguments]
        environment = self._environment_of_client()
        return warm.run(command, env=environment, check=False, timeout=60, capture_output=True, text=True)

    def _environment_of_client(self) -> dict[str, str]:
        import os

        return {**os.environ, **self.environment}


@pytest.fixture
def site(
    migrated_database_url: str,
    broker_url: str,
    result_backend_url: str,
    start_worker: StartWorker,
    tmp_path: Path,
) -> Iterator[Site]:
    app = Celery("crash", broker=broker_url, backend=result_backend_url, include=["tests.apps.crash"])
    app.conf.task_default_queue = "crash"
    environment = {f"TASKSTATE_{name.upper()}": str(value) for name, value in SOON.items()}
    environment |= {
        "CELERY_BROKER_URL": broker_url,
        "CELERY_RESULT_BACKEND": result_backend_url,
        "TASKSTATE_DATABASE_URL": migrated_database_url,
    }
    taskstate = TaskState(app, database_url=migrated_database_url, **SOON)
    app.set_current()
    yield Site(app, taskstate, tmp_path, environment, start_worker)
    taskstate.close()
    app.close()
