"""Deployments for the tests of canvases: a worker of any pool on any broker, and the client's side of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from qhana_taskstate.testing.container import LocalWorker
from tests.apps.factory import make_app
from tests.canvas.deployment import Deployment

#: What the workers import beside `tests.apps.jobs`.
INCLUDE = "tests.apps.canvases,tests.apps.nests"

Deploy = Callable[..., AbstractContextManager[Deployment]]


@pytest.fixture(scope="session")
def deploy(
    request: pytest.FixtureRequest, new_redis_url: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Deploy:
    """Run a worker: `with deploy("postgresql", pool="threads") as deployment`."""

    @contextmanager
    def run(
        kind: str, *, pool: str = "prefork", broker_url: str | None = None, concurrency: int = 2
    ) -> Iterator[Deployment]:
        folder = tmp_path_factory.mktemp(f"{kind}-{pool}")
        server: Any = request.getfixturevalue("postgres_server") if kind == "postgresql" else None
        database_url = server.create_database() if server else f"sqlite:///{folder / 'taskstate.db'}"
        broker, backend = broker_url or new_redis_url(), new_redis_url()
        app, taskstate = make_app(broker, backend, database_url, flush_interval_seconds=0.1)
        taskstate.upgrade()
        worker = LocalWorker(
            LocalWorker.command("-I", INCLUDE, application="tests.apps.worker:app", pool=pool, concurrency=concurrency),
            folder=folder,
            env={
                "CELERY_BROKER_URL": broker,
                "CELERY_RESULT_BACKEND": backend,
                "TASKSTATE_DATABASE_URL": database_url,
            },
            cwd=Path(request.config.rootpath),
        )
        with ExitStack() as stack:
            stack.callback(lambda: server and server.drop_database(database_url))
            stack.callback(app.close)
            stack.callback(taskstate.database.dispose)
            stack.callback(worker.remove)
            worker.start()
            worker.ready()
            yield Deployment(app, taskstate, worker)

    return run


@pytest.fixture(scope="session")
def _on_postgresql(deploy: Deploy) -> Iterator[Deployment]:
    with deploy("postgresql") as deployment:
        yield deployment


@pytest.fixture(scope="session")
def _on_sqlite(deploy: Deploy) -> Iterator[Deployment]:
    with deploy("sqlite") as deployment:
        yield deployment


@pytest.fixture
def deployment(request: pytest.FixtureRequest, kind: str) -> Deployment:
    """The prefork worker on the kind of database that the test names, its app the current one."""
    found: Deployment = request.getfixturevalue(f"_on_{kind}")
    found.app.set_current()
    return found
