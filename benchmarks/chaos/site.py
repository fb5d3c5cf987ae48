"""The deployment under test: servers, workers, clients, and the proxy between them and the database."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Self

from celery import Celery
from sqlalchemy import make_url

from benchmarks.chaos import FOLDER, HOOK, SEED, STOP
from benchmarks.chaos.receiver import Receiver
from qhana_taskstate import TaskState
from qhana_taskstate.testing.container import LocalWorker
from qhana_taskstate.testing.postgres_server import PostgresServer
from qhana_taskstate.testing.process import LocalProcess
from qhana_taskstate.testing.redis_server import RedisServer
from tests.proxy import CuttingProxy

ROOT: Final = Path(__file__).resolve().parents[2]

#: Settings of the deployment: silence counts soon, so that a run of minutes sees many losses settled.
SETTINGS: Final[Mapping[str, Any]] = {
    "heartbeat_seconds": 1,
    "lost_after_seconds": 4,
    "hold_seconds": 6,
    "flush_interval_seconds": 0.5,
    "missing_after_seconds": 10,
}


class Site:
    """Everything that runs. A context manager that starts the servers and ends all of it.

    Args:
        seed: Of the plans.
        folder: For logs and evidence; two folders are made in it.
        workers: How many workers, each with a prefork pool of two.
        clients: How many clients.
        rate: Plans a second, of all clients together.
    """

    def __init__(self, seed: int, folder: Path, *, workers: int, clients: int, rate: float) -> None:
        self.seed = seed
        self.folder = folder
        self.evidence = folder / "evidence"
        self.evidence.mkdir(parents=True)
        self._counts = (workers, clients)
        self._rate = rate
        self._stack = ExitStack()
        self.redis = RedisServer()
        self.results = RedisServer()
        self.postgres = PostgresServer()
        self.receiver = Receiver()
        self.workers: list[LocalWorker] = []
        self.clients: list[LocalProcess] = []
        self._began = 0.0

    def __enter__(self) -> Self:
        with self._stack:
            self._stack.enter_context(self.redis)
            self._stack.enter_context(self.results)
            self._stack.enter_context(self.postgres)
            self._stack.enter_context(self.receiver)
            direct = make_url(self.postgres.create_database())
            self.proxy = self._stack.enter_context(CuttingProxy(self.postgres.port))
            app = Celery("chaos", broker=self.redis.database_url(0))
            self._stack.callback(app.close)
            self.taskstate = TaskState(app, database_url=direct.render_as_string(hide_password=False))
            self._stack.callback(self.taskstate.database.dispose)
            app.set_current()
            self.taskstate.upgrade()
            through_proxy = direct.set(port=self.proxy.port)
            self.environment: dict[str, str | None] = {
                **dict.fromkeys(name for name in os.environ if name.startswith(("TASKSTATE_", "CELERY_"))),
                **{f"TASKSTATE_{name.upper()}": str(value) for name, value in SETTINGS.items()},
                "TASKSTATE_DATABASE_URL": through_proxy.render_as_string(hide_password=False),
                "CELERY_BROKER_URL": self.redis.database_url(0),
                "CELERY_RESULT_BACKEND": self.results.database_url(0),
                SEED: str(self.seed),
                FOLDER: str(self.evidence),
                HOOK: self.receiver.address,
                "TASKSTATE_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
                "TASKSTATE_WEBHOOK_RETRY_SCHEDULE": str([1] * 100),
                "TASKSTATE_WEBHOOK_MIN_INTERVAL_SECONDS": "0.5",
            }
            self._start_workers()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start_workers(self) -> None:
        for number in range(self._counts[0]):
            command = LocalWorker.command(application="benchmarks.chaos.app:app", pool="prefork", concurrency=2)
            command[command.index("-n") + 1] = f"w{number}@%h"
            worker = LocalWorker(
                command, folder=self.folder / "logs", env=self.environment, cwd=ROOT, name=f"w{number}"
            )
            self._stack.callback(worker.remove)
            worker.start()
            self.workers.append(worker)

    def start_load(self) -> None:
        """Start the clients."""
        self._began = time.time()
        environment = {**os.environ, **{key: value for key, value in self.environment.items() if value is not None}}
        for number in range(self._counts[1]):
            command = [sys.executable, "-m", "benchmarks.chaos.client", "--index", str(number)]
            command += ["--count", str(self._counts[1]), "--rate", str(self._rate), "--began", str(self._began)]
            command += ["--folder", str(self.folder)]
            log = self.folder / "logs" / f"client-{number}.log"
            log.parent.mkdir(exist_ok=True)
            client = LocalProcess(command, log_path=log, cwd=ROOT, env=environment)
            self._stack.callback(client.close)
            client.start()
            self.clients.append(client)

    def stop_load(self) -> None:
        """Let the clients start nothing more; they go on answering steps."""
        (self.folder / STOP).touch()
