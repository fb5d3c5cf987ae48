"""A running deployment for the tests: database, broker, a prefork worker, and the client's side of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from qhana_taskstate import ProcessingTask, TaskState
from qhana_taskstate.testing.container import LocalWorker
from qhana_taskstate.testing.redis_server import RedisServer
from tests.apps.factory import make_app


@dataclass(frozen=True)
class Deployment:
    """A worker that runs `tests.apps.jobs`, and an app in this process that sends to it."""

    app: Celery
    taskstate: TaskState
    worker: LocalWorker
    broker_url: str
    database_url: str

    def run(self, work: Any, timeout: float = 30, **options: Any) -> ProcessingTask:
        """Start work and wait for its end."""
        return self.taskstate.wait(self.taskstate.start(work, **options).id, timeout=timeout)


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of database."""
    return str(request.param)


@pytest.fixture(scope="session")
def _deployment(
    kind: str, redis_server: RedisServer, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp(f"deployment-{kind}")
    server = request.getfixturevalue("postgres_server") if kind == "postgresql" else None
    database_url = server.create_database() if server else f"sqlite:///{folder / 'taskstate.db'}"
    numbers = request.getfixturevalue("_redis_numbers")
    broker_url, backend = (redis_server.database_url(next(numbers)) for _ in range(2))
    app, taskstate = make_app(broker_url, backend, database_url, flush_interval_seconds=0.1)
    taskstate.upgrade()
    worker = LocalWorker(
        LocalWorker.command(application="tests.apps.worker:app", pool="prefork", concurrency=2),
        folder=folder,
        env={
            "CELERY_BROKER_URL": broker_url,
            "CELERY_RESULT_BACKEND": backend,
            "TASKSTATE_DATABASE_URL": database_url,
        },
        cwd=Path(request.config.rootpath),
    )
    worker.start()
    worker.ready()
    yield Deployment(app, taskstate, worker, broker_url, database_url)
    worker.remove()
    taskstate.close()
    app.close()
    if server:
        server.drop_database(database_url)


@pytest.fixture
def deployment(_deployment: Deployment) -> Deployment:
    """The deployment, with its app as the current one of this thread."""
    _deployment.app.set_current()
    return _deployment
