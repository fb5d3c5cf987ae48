"""A pytest plugin: pytest-celery without Docker, and fixtures for servers, databases and workers.

Load it from the top `conftest.py` with `pytest_plugins = ("qhana_taskstate.testing.plugin",)`; it does not load by
itself. What it offers:

- `celery_setup`, `celery_worker`, `celery_broker_cluster` and the other fixtures of pytest-celery, on local
  processes. Redis is broker and result backend; `celery_rabbitmq_broker` works too.
- `redis_server`, `rabbitmq_server`, `postgres_server`, `mariadb_server`: one server each for the whole run.
- `broker_url`, `result_backend_url`, `taskstate_database_url`, `migrated_database_url`: new places for one test.
- `start_worker`: real workers for one test. `run_celery`: a command line of Celery.

A server that is not installed fails the test where the environment variable CI is set, and skips it elsewhere.
"""

from __future__ import annotations

from collections.abc import Generator

import pytest

from qhana_taskstate.testing.fixtures.missing_servers import end_without
from qhana_taskstate.testing.fixtures.protocols import RunCelery, StartWorker
from qhana_taskstate.testing.server import ServerMissingError

__all__ = ["RunCelery", "StartWorker"]

pytest_plugins = (
    "qhana_taskstate.testing.fixtures.servers",
    "qhana_taskstate.testing.fixtures.databases",
    "qhana_taskstate.testing.fixtures.workers",
    "qhana_taskstate.testing.fixtures.broker_nodes",
    "qhana_taskstate.testing.fixtures.worker_nodes",
)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, None, None]:
    """Treat a server that a test starts by itself like those of the fixtures, if it is not installed."""
    try:
        yield
    except ServerMissingError as error:
        end_without(error)
