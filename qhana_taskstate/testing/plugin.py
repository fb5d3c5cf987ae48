"""A pytest plugin: pytest-celery without Docker, and fixtures for servers, databases, workers and webhooks.

Load it from the top `conftest.py` with `pytest_plugins = ["qhana_taskstate.testing.plugin"]`; it does not load by
itself. What it offers:

- `taskstate`: a `TaskState` on a database of the test alone. `taskstate_worker`: a worker in a thread of the test.
  `webhook_receiver`: a receiver with scripted answers that checks what it is told.
- `start_worker`: real workers for one test; `kill_worker` kills them. `run_celery`: a command line of Celery.
- `celery_setup`, `celery_worker`, `celery_broker_cluster` and the other fixtures of pytest-celery, on local
  processes. Redis is broker and result backend; `celery_rabbitmq_broker` works too. With
  `--taskstate-nodes=docker` they are pytest-celery's own, in Docker.
- `redis_server`, `rabbitmq_server`, `postgres_server`, `mariadb_server`: one server each for the whole run.
- `broker_url`, `result_backend_url`, `taskstate_database_url`, `migrated_database_url`: new places for one test.

A server that is not installed fails the test where the environment variable CI is set, and skips it elsewhere.
"""

from __future__ import annotations

from collections.abc import Generator

import pytest

from qhana_taskstate.testing.fixtures.missing_servers import end_without
from qhana_taskstate.testing.fixtures.protocols import KillWorker, RunCelery, StartWorker
from qhana_taskstate.testing.server import ServerMissingError

__all__ = ["KillWorker", "RunCelery", "StartWorker"]

pytest_plugins = (
    "qhana_taskstate.testing.fixtures.servers",
    "qhana_taskstate.testing.fixtures.databases",
    "qhana_taskstate.testing.fixtures.states",
    "qhana_taskstate.testing.fixtures.workers",
)

#: What takes the place of pytest-celery's own nodes.
_LOCAL_NODES = (
    "qhana_taskstate.testing.fixtures.broker_nodes",
    "qhana_taskstate.testing.fixtures.worker_nodes",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option for the nodes of pytest-celery."""
    parser.getgroup("taskstate").addoption(
        "--taskstate-nodes",
        choices=("local", "docker"),
        default="local",
        help="what the nodes of pytest-celery's celery_setup are: processes of this machine, or containers of Docker",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Put local processes in the place of containers, unless these are asked for."""
    if config.getoption("--taskstate-nodes") == "local":
        for name in _LOCAL_NODES:
            config.pluginmanager.import_plugin(name)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, None, None]:
    """Treat a server that a test starts by itself like those of the fixtures, if it is not installed."""
    try:
        yield
    except ServerMissingError as error:
        end_without(error)
