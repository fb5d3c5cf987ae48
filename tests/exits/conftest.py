"""A worker of each pool that runs `tests.apps.exits`, with settings that let silence count soon."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from qhana_taskstate import TaskState
from qhana_taskstate.testing.container import LocalWorker
from tests.canvas.deployment import Deployment

SOON: dict[str, Any] = {
    "heartbeat_seconds": 0.3,
    "lost_after_seconds": 1.5,
    "flush_interval_seconds": 0.1,
}

DeployExits = Callable[..., AbstractContextManager[Deployment]]


@pytest.fixture(scope="session")
def deploy_exits(
    request: pytest.FixtureRequest, new_redis_url: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> DeployExits:
    """Run a worker: `with deploy_exits("postgresql", pool="threads") as deployment`."""

    @contextmanager
    def run(
        kind: str,
        *,
        pool: str = "prefork",
        concurrency: int = 2,
        backend: str | None = None,
        environment: dict[str, str] | None = None,
    ) -> Iterator[Deployment]:
        folder = tmp_path_factory.mktemp(f"{kind}-{pool}")
        server: Any = request.getfixturevalue("postgres_server") if kind == "postgresql" else None
        database_url = server.create_database() if server else f"sqlite:///{folder / 'taskstate.db'}"
        broker, backend = new_redis_url(), backend or new_redis_url()
        app = Celery("exits", broker=broker, backend=backend, include=["tests.apps.exits"])
        app.conf.task_default_queue = "exits"
        taskstate = TaskState(app, database_url=database_url, **SOON)
        taskstate.upgrade()
        worker = LocalWorker(
            LocalWorker.command(application="tests.apps.exits:app", pool=pool, concurrency=concurrency),
            folder=folder,
            env={f"TASKSTATE_{name.upper()}": str(value) for name, value in SOON.items()}
            | {
                "CELERY_BROKER_URL": broker,
                "CELERY_RESULT_BACKEND": backend,
                "TASKSTATE_DATABASE_URL": database_url,
            }
            | (environment or {}),
            cwd=Path(request.config.rootpath),
        )
        with ExitStack() as stack:
            stack.callback(lambda: server and server.drop_database(database_url))
            stack.callback(app.close)
            stack.callback(taskstate.database.dispose)
            stack.callback(worker.remove)
            worker.start()
            worker.ready()
            app.set_current()
            yield Deployment(app, taskstate, worker)

    return run
