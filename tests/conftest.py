"""Fixtures for all tests: real servers and workers as local processes."""

from __future__ import annotations

import gc
import signal
from collections.abc import Generator, Iterator
from typing import Any, Final

import pytest
from hypothesis import settings

from qhana_taskstate.testing.fixtures.missing_servers import serve
from qhana_taskstate.testing.postgres_server import PostgresServer
from qhana_taskstate.testing.process import starting
from tests import sharing, warm
from tests.pgbouncer import PgBouncer

pytest_plugins = ("pytester", "qhana_taskstate.testing.plugin")

#: Fixtures that start a server, a worker or a command in a process of its own.
_SERVERS: Final = frozenset(
    (
        "redis_server",
        "rabbitmq_server",
        "postgres_server",
        "mariadb_server",
        "start_worker",
        "run_celery",
        "celery_setup",
    )
)
#: Folders whose tests start such processes by themselves.
_FOLDERS: Final = frozenset(("canvas", "crash", "exits", "hosts", "qhana", "testing", "tutorial"))

# The machine is shared with servers and workers, so how long one example takes says nothing.
settings.register_profile("taskstate", deadline=None, print_blob=True)
settings.load_profile("taskstate")

starting.popen, starting.run = warm.popen, warm.run
sharing.install()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    parser.addoption("--mariadb", action="store_true", help="run what is tested on MariaDB too there, and nothing else")
    parser.addoption("--pgbouncer", action="store_true", help="reach databases of PostgreSQL through a PgBouncer")


@pytest.fixture(scope="session")
def shared_pgbouncer(postgres_server: PostgresServer) -> Iterator[PgBouncer]:
    """A PgBouncer in transaction mode for the whole run; it has a connection for each thread of a test."""
    yield from serve(PgBouncer(postgres_server, pool_size=20))


@pytest.fixture
def taskstate_database_url(request: pytest.FixtureRequest, taskstate_database_url: str, database_kind: str) -> str:
    """The URL of the plugin; through PgBouncer where that is asked for."""
    if database_kind != "postgresql" or not request.config.getoption("--pgbouncer"):
        return taskstate_database_url
    pgbouncer: PgBouncer = request.getfixturevalue("shared_pgbouncer")
    return pgbouncer.through(taskstate_database_url)


def pytest_configure() -> None:
    """Take interrupts again where a shell that runs this in the background ignores them.

    Processes inherit that: those which the tests interrupt would not end.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave MariaDB to a run of its own, and mark what needs servers, so that `-m "not servers"` is the quick half."""
    if config.getoption("--mariadb") or "mariadb" not in config.getoption("--taskstate-databases"):
        others = [item for item in items if _is_on_mariadb(item) != config.getoption("--mariadb")]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if _is_on_mariadb(item) == config.getoption("--mariadb")]
    for item in items:
        if _needs_servers(item):
            item.add_marker(pytest.mark.servers)


def pytest_collection_finish() -> None:
    """Let the garbage collector look less often at all that was imported for the tests, and stays.

    `gc.freeze` would hide it from Hypothesis, which asks who refers to its random numbers.
    """
    gc.set_threshold(20_000, 20, 20)


def _kind_of_database(item: pytest.Item) -> str:
    parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    return str(parameters.get("database_kind", "sqlite"))


def _is_on_mariadb(item: pytest.Item) -> bool:
    return _kind_of_database(item) == "mariadb"


def _needs_servers(item: pytest.Item) -> bool:
    fixtures = getattr(item, "fixturenames", ())
    return (
        not _SERVERS.isdisjoint(fixtures)
        or _kind_of_database(item) != "sqlite"
        or not _FOLDERS.isdisjoint(item.path.parts)
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let the apps of a test have the tasks that it knows."""
    with sharing.sharing(item.path.parent):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Generator[None, object, object]:
    """Let the apps that several tests share have all tasks."""
    if fixturedef.scope == "function":
        return (yield)
    with sharing.sharing(None):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, dict[str, Any] | None, dict[str, Any] | None]:
    """Escape what UTF-8 cannot hold: some tests log it, and pytest-xdist cannot send a report with it (xdist 3.8)."""
    data: dict[str, Any] | None = yield
    return data if data is None else {key: _escaped(value) for key, value in data.items()}


def _escaped(value: Any) -> Any:
    match value:
        case str():
            return value.encode(errors="backslashreplace").decode()
        case dict():
            return {key: _escaped(found) for key, found in value.items()}
        case list():
            return [_escaped(found) for found in value]
        case tuple():
            return tuple(_escaped(found) for found in value)
        case _:
            return value
