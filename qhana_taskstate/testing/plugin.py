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

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Protocol, TypeVar

import pytest
from pytest_celery.vendors.redis.backend.defaults import CELERY_REDIS_BACKEND
from pytest_celery.vendors.redis.broker.defaults import CELERY_REDIS_BROKER

from qhana_taskstate.testing.container import (
    LocalProcessContainer,
    LocalRabbitMQ,
    LocalRedis,
    LocalServerContainer,
    LocalWorker,
)
from qhana_taskstate.testing.mariadb_server import MariaDBServer
from qhana_taskstate.testing.postgres_server import PostgresServer
from qhana_taskstate.testing.rabbitmq_server import RabbitMQServer
from qhana_taskstate.testing.redis_server import RedisServer
from qhana_taskstate.testing.server import LocalServer, ServerMissingError
from qhana_taskstate.testing.sql_server import SqlServer

from ..database import schema
from ..database.engine import Database

DATABASE_KINDS = ("sqlite", "postgresql", "mariadb")
_COMMAND_SECONDS = 60.0

ServerT = TypeVar("ServerT", bound=LocalServer)
ContainerT = TypeVar("ContainerT", bound=LocalProcessContainer)

#: The workers that a test has started, so that a failure can show their logs.
_WORKERS = pytest.StashKey[list[LocalWorker]]()


class StartWorker(Protocol):
    """What the fixture `start_worker` is."""

    def __call__(
        self,
        app: str = ...,
        *,
        pool: str = "prefork",
        concurrency: int = 2,
        env: Mapping[str, str | None] | None = None,
        args: Sequence[str] = (),
        cwd: Path | None = None,
        wait: bool = True,
    ) -> LocalWorker:
        """Start a worker."""
        ...


class RunCelery(Protocol):
    """What the fixture `run_celery` is."""

    def __call__(
        self,
        *args: str,
        env: Mapping[str, str | None] | None = None,
        cwd: Path | None = None,
        timeout: float = _COMMAND_SECONDS,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command line of Celery."""
        ...


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("taskstate")
    group.addoption(
        "--taskstate-databases",
        default="sqlite,postgresql",
        metavar="KINDS",
        help=f"databases that taskstate_database_url stands for, of {','.join(DATABASE_KINDS)} (default: %(default)s)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Describe the markers and check the options."""
    config.addinivalue_line("markers", "mariadb: taskstate_database_url stands for MariaDB too in this test")
    config.addinivalue_line("markers", "databases(*kinds): taskstate_database_url stands for these alone in this test")
    _database_kinds(config)


def _database_kinds(config: pytest.Config) -> list[str]:
    kinds = [kind.strip() for kind in str(config.getoption("--taskstate-databases")).split(",") if kind.strip()]
    _check_kinds(kinds, "--taskstate-databases")
    return kinds


def _check_kinds(kinds: Sequence[str], source: str) -> None:
    for kind in kinds:
        if kind not in DATABASE_KINDS:
            raise pytest.UsageError(f"{source} names {kind!r}; it takes {', '.join(DATABASE_KINDS)}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that uses a database once for each kind."""
    if "database_kind" not in metafunc.fixturenames:
        return
    only = metafunc.definition.get_closest_marker("databases")
    if only is not None:
        kinds = list(only.args)
        _check_kinds(kinds, "the marker databases")
    else:
        kinds = _database_kinds(metafunc.config)
        if metafunc.definition.get_closest_marker("mariadb") is not None and "mariadb" not in kinds:
            kinds.append("mariadb")
    metafunc.parametrize("database_kind", kinds, indirect=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the logs of the workers under a test that failed."""
    report = yield
    if report.failed:
        for worker in item.stash.get(_WORKERS, []):
            report.sections.append((f"log of {worker.name}", worker.logs()))
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, None, None]:
    """Treat a server that a test starts by itself like those of the fixtures, if it is not installed."""
    try:
        yield
    except ServerMissingError as error:
        _missing(error)


def _missing(error: ServerMissingError) -> None:
    """End the test: a server that is not there must not look like a success where it is meant to be there."""
    if os.environ.get("CI"):
        pytest.fail(f"{error} (a failure, since CI is set)", pytrace=False)
    pytest.skip(str(error))


def _serve(server: ServerT) -> Iterator[ServerT]:
    try:
        server.start()
    except ServerMissingError as error:
        server.close()
        _missing(error)
    except BaseException:
        server.close()
        raise
    try:
        yield server
    finally:
        server.close()


def _run(container: ContainerT) -> Iterator[ContainerT]:
    try:
        container.start()
        container.ready()
    except ServerMissingError as error:
        container.remove()
        _missing(error)
    except BaseException:
        container.remove()
        raise
    try:
        yield container
    finally:
        container.remove()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A Redis for the whole run. A test that stops or kills a Redis makes one of its own: `with RedisServer()`."""
    yield from _serve(RedisServer())


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[RabbitMQServer]:
    """A RabbitMQ for the whole run; it needs some seconds to start."""
    yield from _serve(RabbitMQServer())


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL for the whole run. A test that restarts one makes one of its own: `with PostgresServer()`."""
    yield from _serve(PostgresServer())


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariaDBServer]:
    """A MariaDB for the whole run."""
    yield from _serve(MariaDBServer())


@pytest.fixture(scope="session")
def _redis_numbers() -> Iterator[int]:
    """Numbers of Redis databases that no test has used yet; 0 is left to whoever uses `redis_server.url`."""
    return count(1)


@pytest.fixture(scope="session")
def new_redis_url(redis_server: RedisServer, _redis_numbers: Iterator[int]) -> Callable[[], str]:
    """Give the URL of an empty Redis database at each call; for fixtures that live longer than a test."""
    return lambda: redis_server.database_url(next(_redis_numbers))


@pytest.fixture
def broker_url(new_redis_url: Callable[[], str]) -> str:
    """URL of an empty Redis database, the broker of this test. Override it to run on another broker."""
    return new_redis_url()


@pytest.fixture
def result_backend_url(new_redis_url: Callable[[], str]) -> str | None:
    """URL of an empty Redis database, the result backend of this test. Override it with None for no backend."""
    return new_redis_url()


@pytest.fixture
def rabbitmq_url(rabbitmq_server: RabbitMQServer) -> str:
    """URL of an empty virtual host of RabbitMQ."""
    return rabbitmq_server.create_vhost()


@pytest.fixture
def database_kind(request: pytest.FixtureRequest) -> str:
    """The kind of database that this run of the test is on: sqlite, postgresql or mariadb."""
    return str(getattr(request, "param", "sqlite"))


@pytest.fixture
def database_server(database_kind: str, request: pytest.FixtureRequest) -> SqlServer | None:
    """The server of the database, None for SQLite."""
    names = {"postgresql": "postgres_server", "mariadb": "mariadb_server"}
    server: SqlServer | None = request.getfixturevalue(names[database_kind]) if database_kind in names else None
    return server


class _Templates:
    """Databases with the tables of this package, made once in a run and copied for each test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._servers: dict[str, str] = {}

    def copy_file(self, target: Path) -> None:
        """Make a SQLite file with the tables."""
        template = self._folder / "template.db"
        if not template.exists():
            _upgrade(f"sqlite:///{template}")
        with closing(sqlite3.connect(template)) as source, closing(sqlite3.connect(target)) as copy:
            source.backup(copy)

    def copy_database(self, server: SqlServer) -> str:
        """Make a database with the tables on a server. Returns its URL."""
        if not server.can_copy:
            url = server.create_database()
            _upgrade(url)
            return url
        if server.kind not in self._servers:
            template = server.create_database()
            _upgrade(template)
            self._servers[server.kind] = template
        return server.create_database(self._servers[server.kind])


def _upgrade(url: str) -> None:
    database = Database(url)
    schema.upgrade(database)
    database.dispose()


@pytest.fixture(scope="session")
def _templates(tmp_path_factory: pytest.TempPathFactory) -> _Templates:
    return _Templates(tmp_path_factory.mktemp("templates"))


@pytest.fixture
def taskstate_database_url(
    request: pytest.FixtureRequest, database_server: SqlServer | None, tmp_path: Path, _templates: _Templates
) -> Iterator[str]:
    """SQLAlchemy URL of a new database without tables: a SQLite file, or a database on a server.

    The test runs once for each kind; see the option `--taskstate-databases` and the markers `mariadb` and
    `databases`. With `migrated_database_url` in the same test, the tables are there.
    """
    with_tables = "migrated_database_url" in request.fixturenames
    if database_server is None:
        path = tmp_path / "taskstate.db"
        if with_tables:
            _templates.copy_file(path)
        yield f"sqlite:///{path}"
        return
    url = _templates.copy_database(database_server) if with_tables else database_server.create_database()
    yield url
    if database_server.running:
        database_server.drop_database(url)


@pytest.fixture
def migrated_database_url(taskstate_database_url: str) -> str:
    """The same URL as `taskstate_database_url`, of a database that has the tables of this version."""
    return taskstate_database_url


@pytest.fixture
def worker_environment(
    request: pytest.FixtureRequest, broker_url: str, result_backend_url: str | None
) -> dict[str, str | None]:
    """What `start_worker` and `run_celery` lay over the environment; None removes a variable. Change it at will.

    TASKSTATE_DATABASE_URL is set where the test uses `taskstate_database_url`.
    """
    environment: dict[str, str | None] = {
        "CELERY_BROKER_URL": broker_url,
        "CELERY_RESULT_BACKEND": result_backend_url,
        "TASKSTATE_DATABASE_URL": None,
    }
    if "taskstate_database_url" in request.fixturenames:
        environment["TASKSTATE_DATABASE_URL"] = request.getfixturevalue("taskstate_database_url")
    return environment


@pytest.fixture
def start_worker(
    request: pytest.FixtureRequest, worker_environment: dict[str, str | None], tmp_path: Path
) -> Iterator[StartWorker]:
    """Start real workers that the end of the test kills with all that they started.

    `start_worker("tests.apps.plain:app", pool="prefork", concurrency=2, env={...}, args=["-O", "fair"])` returns
    a `LocalWorker` once its log says that it is ready. It runs in the folder of pytest's configuration (`cwd=`
    for another). `wait=False` returns at once.
    """
    workers: list[LocalWorker] = []
    request.node.stash[_WORKERS] = workers

    def start(
        app: str = "worker",
        *,
        pool: str = "prefork",
        concurrency: int = 2,
        env: Mapping[str, str | None] | None = None,
        args: Sequence[str] = (),
        cwd: Path | None = None,
        wait: bool = True,
    ) -> LocalWorker:
        worker = LocalWorker(
            LocalWorker.command(*args, application=app, pool=pool, concurrency=concurrency),
            folder=tmp_path / "workers",
            env={**worker_environment, **(env or {})},
            cwd=cwd or request.config.rootpath,
        )
        workers.append(worker)
        worker.start()
        if wait:
            worker.ready()
        return worker

    yield start
    for worker in workers:
        worker.remove()


@pytest.fixture
def run_celery(request: pytest.FixtureRequest, worker_environment: dict[str, str | None]) -> RunCelery:
    """Run `celery ARGS...` to its end, with the environment that workers get.

    Returns standard output and error apart; a code other than 0 is no error here.
    """

    def run(
        *args: str,
        env: Mapping[str, str | None] | None = None,
        cwd: Path | None = None,
        timeout: float = _COMMAND_SECONDS,
    ) -> subprocess.CompletedProcess[str]:
        changes = {**worker_environment, **(env or {})}
        environment = {key: value for key, value in {**os.environ, **changes}.items() if value is not None}
        return subprocess.run(
            [sys.executable, "-m", "celery", *args],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=cwd or request.config.rootpath,
            env=environment,
            timeout=timeout,
            check=False,
        )

    return run


@pytest.fixture(params=[CELERY_REDIS_BROKER])
def celery_broker(request: pytest.FixtureRequest) -> Iterator[object]:
    """The broker node of a setup: a local Redis."""
    node = request.getfixturevalue(request.param)
    yield node
    node.teardown()


@pytest.fixture(params=[CELERY_REDIS_BACKEND])
def celery_backend(request: pytest.FixtureRequest) -> Iterator[object]:
    """The result backend node of a setup: a local Redis."""
    node = request.getfixturevalue(request.param)
    yield node
    node.teardown()


@pytest.fixture
def default_pytest_celery_network() -> SimpleNamespace:
    """What the nodes share instead of a network of Docker's."""
    return SimpleNamespace(name="loopback", id="loopback")


@pytest.fixture
def default_redis_broker_cls() -> type[LocalRedis]:
    """The class of the Redis that is the broker."""
    return LocalRedis


@pytest.fixture
def default_redis_broker(default_redis_broker_cls: type[LocalRedis]) -> Iterator[LocalRedis]:
    """A private Redis for one test, the broker."""
    yield from _run(default_redis_broker_cls())


@pytest.fixture
def default_redis_backend_cls() -> type[LocalRedis]:
    """The class of the Redis that is the result backend."""
    return LocalRedis


@pytest.fixture
def default_redis_backend(default_redis_backend_cls: type[LocalRedis]) -> Iterator[LocalRedis]:
    """A private Redis for one test, the result backend."""
    yield from _run(default_redis_backend_cls())


@pytest.fixture
def default_rabbitmq_broker_cls() -> type[LocalRabbitMQ]:
    """The class of the RabbitMQ that is the broker."""
    return LocalRabbitMQ


@pytest.fixture
def default_rabbitmq_broker(default_rabbitmq_broker_cls: type[LocalRabbitMQ]) -> Iterator[LocalServerContainer]:
    """A private RabbitMQ for one test, the broker."""
    yield from _run(default_rabbitmq_broker_cls())


@pytest.fixture
def celery_base_worker_image() -> SimpleNamespace:
    """Stands for the image of the worker, which is the environment that the tests run in."""
    return SimpleNamespace(id="local", tags=["local"])


@pytest.fixture
def default_worker_container_cls() -> type[LocalWorker]:
    """The class of the worker's container."""
    return LocalWorker


@pytest.fixture(scope="session")
def default_worker_container_session_cls() -> type[LocalWorker]:
    """The class of the worker's container, for what is asked once in a run."""
    return LocalWorker


@pytest.fixture
def default_worker_volume(default_worker_initial_content: Mapping[str, bytes], tmp_path: Path) -> Path:
    """The folder that the worker runs in, with the app and the task modules that pytest-celery generates."""
    volume = tmp_path / "volume"
    for name, content in default_worker_initial_content.items():
        path = volume / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return volume


@pytest.fixture
def default_worker_application() -> str:
    """What stands after `celery -A`. Override it to run an app of your own instead of the generated one."""
    return "app"


@pytest.fixture
def default_worker_pool() -> str:
    """The pool of the worker: prefork, threads, solo or gevent."""
    return "prefork"


@pytest.fixture
def default_worker_concurrency() -> int:
    """How many tasks the worker runs at once."""
    return 2


@pytest.fixture
def default_worker_args() -> Sequence[str]:
    """Further arguments of `celery worker`."""
    return ()


@pytest.fixture
def default_worker_command(
    default_worker_container_cls: type[LocalWorker],
    default_worker_application: str,
    default_worker_pool: str,
    default_worker_concurrency: int,
    default_worker_args: Sequence[str],
) -> list[str]:
    """The command of the worker."""
    return default_worker_container_cls.command(
        *default_worker_args,
        application=default_worker_application,
        pool=default_worker_pool,
        concurrency=default_worker_concurrency,
        queues=default_worker_container_cls.worker_queue(),
    )


@pytest.fixture
def default_worker_env(
    request: pytest.FixtureRequest,
    default_worker_container_cls: type[LocalWorker],
    celery_worker_cluster_config: dict[str, object],
) -> dict[str, str]:
    """What is laid over the environment of the worker: the URLs of the nodes, and the database if the test has one."""
    environment: dict[str, str] = default_worker_container_cls.initial_env(celery_worker_cluster_config)
    # Names a folder inside a container; the local worker adds its own.
    environment["PYTHONPATH"] = str(request.config.rootpath)
    if "taskstate_database_url" in request.fixturenames:
        environment["TASKSTATE_DATABASE_URL"] = request.getfixturevalue("taskstate_database_url")
    return environment


@pytest.fixture
def default_worker_container(
    default_worker_container_cls: Callable[..., LocalWorker],
    default_worker_command: Sequence[str],
    default_worker_env: Mapping[str, str],
    default_worker_volume: Path,
    tmp_path: Path,
) -> Iterator[LocalWorker]:
    """A worker for one test, ready."""
    yield from _run(
        default_worker_container_cls(
            default_worker_command,
            folder=tmp_path / "workers",
            env=default_worker_env,
            cwd=default_worker_volume,
        )
    )
