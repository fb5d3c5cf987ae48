"""compose.yaml and Dockerfile: their structure, and that what they run does run."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from qhana_taskstate.settings.sources import read_settings
from qhana_taskstate.testing import LocalProcess, PostgresServer, RedisServer, wait_until
from qhana_taskstate.testing.plugin import RunCelery, StartWorker
from qhana_taskstate.testing.receiver import WebhookReceiver
from qhana_taskstate.testing.server import free_port

ROOT = Path(__file__).parents[2]
#: `${NAME}`, `${NAME-default}` and `${NAME:-default}` as compose replaces them.
VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::?-(?P<default>[^}]*))?\}")


def with_defaults(text: str) -> str:
    """Replace the variables of a text as compose does where none is set."""
    return VARIABLE.sub(lambda match: match["default"] or "", text).replace("$$", "$")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return loaded


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = compose["services"]
    return found


def command_of(service: dict[str, Any]) -> list[str]:
    return [with_defaults(word) for word in service["command"]]


@pytest.fixture(scope="module")
def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile: word and rest."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


class TestCompose:
    def test_it_has_the_promised_services(self, services: dict[str, Any]) -> None:
        assert set(services) >= {"redis", "postgres", "migrate", "worker", "webhooks", "web"}

    def test_every_service_says_whether_it_is_healthy(self, services: dict[str, Any]) -> None:
        for name, service in services.items():
            health = service["healthcheck"]
            # What ends by itself is judged by its exit code.
            assert health.get("disable") is (True if name == "migrate" else None), name

    def test_the_servers_keep_their_data_in_named_volumes(self, compose: dict[str, Any]) -> None:
        for name, target in (("redis", "/data"), ("postgres", "/var/lib/postgresql/data")):
            volume, path = compose["services"][name]["volumes"][0].split(":")
            assert path == target
            assert volume in compose["volumes"]

    def test_ports_are_open_on_loopback_alone(self, services: dict[str, Any]) -> None:
        ports = [port for service in services.values() for port in service.get("ports", [])]
        assert ports
        assert not [port for port in ports if not port.startswith("127.0.0.1:")]

    def test_who_uses_the_tables_waits_for_the_migration(self, services: dict[str, Any]) -> None:
        for name, service in services.items():
            if "TASKSTATE_DATABASE_URL" in service.get("environment", {}) and name != "migrate":
                assert service["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}, name
        assert services["migrate"]["depends_on"]["postgres"] == {"condition": "service_healthy"}
        assert services["migrate"]["restart"] == "no"

    def test_the_worker_has_time_to_end_its_tasks(self, services: dict[str, Any]) -> None:
        seconds = with_defaults(services["worker"]["stop_grace_period"])
        assert int(seconds.removesuffix("s")) >= 30

    def test_commands_are_those_that_a_deployment_knows(self, services: dict[str, Any]) -> None:
        assert command_of(services["worker"])[:4] == ["celery", "-A", "worker", "worker"]
        assert command_of(services["migrate"]) == ["celery", "-A", "worker", "taskstate", "upgrade"]

    def test_webhooks_have_a_queue_and_a_worker_of_their_own(self, services: dict[str, Any]) -> None:
        queue = with_defaults(services["webhooks"]["environment"]["TASKSTATE_WEBHOOK_QUEUE"])
        command = command_of(services["webhooks"])
        assert command[command.index("--queues") + 1] == queue
        # Without a list of queues a worker consumes the default one alone.
        assert not {"-Q", "--queues"} & set(command_of(services["worker"]))
        assert services["worker"]["environment"]["TASKSTATE_WEBHOOK_QUEUE"] == queue

    def test_webhooks_may_reach_the_loopback_and_the_network_of_the_services_alone(
        self, compose: dict[str, Any]
    ) -> None:
        (config,) = compose["networks"]["default"]["ipam"]["config"]
        subnet = with_defaults(config["subnet"])
        for name in ("worker", "webhooks"):
            environment = compose["services"][name]["environment"]
            allowed = with_defaults(environment["TASKSTATE_WEBHOOK_ALLOWED_NETWORKS"])
            assert set(allowed.split(",")) == {"127.0.0.0/8", "::1/128", subnet}
            assert ipaddress.ip_network(subnet).is_private
            settings = read_settings({}, {}, {key: with_defaults(value) for key, value in environment.items()})
            assert settings.webhook_allowed_networks == tuple(allowed.split(","))
            assert settings.webhook_secrets == ()

    def test_passwords_come_from_the_environment(self, services: dict[str, Any]) -> None:
        for service in services.values():
            for key, value in service.get("environment", {}).items():
                if "PASSWORD" in key:
                    assert VARIABLE.fullmatch(value), key
                elif re.search(r"//[^/@]*:[^/@]+@", value):
                    assert "${POSTGRES_PASSWORD" in value, key


class TestCommands:
    """What the services run, started by hand on this machine."""

    @pytest.fixture
    def redis_of_compose(self, services: dict[str, Any], tmp_path: Path) -> Iterator[int]:
        with RedisServer() as server:
            program = server.process.command[0]
        port = free_port()
        words = [program, *command_of(services["redis"])[1:], "--bind", "127.0.0.1", "--port", str(port)]
        process = LocalProcess(words, log_path=tmp_path / "log", cwd=tmp_path)
        process.start()
        yield port
        process.close()

    def test_redis_starts_and_writes_what_it_gets(self, redis_of_compose: int, tmp_path: Path) -> None:
        def answers() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", redis_of_compose)) == 0

        wait_until("redis listens", answers)
        with redis.Redis(port=redis_of_compose) as client:
            assert client.ping()
            assert client.config_get("appendonly") == {"appendonly": "yes"}
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}

    def test_migration_worker_and_health_check_run_one_after_the_other(
        self,
        services: dict[str, Any],
        postgres_server: PostgresServer,
        run_celery: RunCelery,
        start_worker: StartWorker,
    ) -> None:
        env = {"TASKSTATE_DATABASE_URL": postgres_server.create_database()}
        for _ in range(2):
            migrated = run_celery(*command_of(services["migrate"])[1:], env=env)
            assert migrated.returncode == 0, migrated.stderr

        application, *options = command_of(services["worker"])[2:]
        assert options[0] == "worker"
        worker = start_worker(application, env=env, args=options[1:])
        check = services["worker"]["healthcheck"]["test"]
        assert check[0] == "CMD-SHELL"
        # In a container the worker's name ends with the host name of the container.
        line = with_defaults(check[1]).replace('"celery@$HOSTNAME"', worker.node_name)
        assert worker.node_name in line
        code, output = worker.exec_run(["sh", "-c", line])
        assert code == 0, output
        assert b"pong" in output

    def test_worker_of_the_webhooks_tells_what_the_other_one_owes(
        self,
        services: dict[str, Any],
        postgres_server: PostgresServer,
        run_celery: RunCelery,
        start_worker: StartWorker,
        broker_url: str,
        tmp_path: Path,
    ) -> None:
        environment = {key: with_defaults(value) for key, value in services["webhooks"]["environment"].items()}
        names = [key for key in environment if key.startswith("TASKSTATE_WEBHOOK_")]
        env = {key: environment[key] for key in names} | {"TASKSTATE_DATABASE_URL": postgres_server.create_database()}
        assert run_celery(*command_of(services["migrate"])[1:], env=env).returncode == 0
        for name in ("worker", "webhooks"):
            application, *options = command_of(services[name])[2:]
            # By its long names, which the worker of a test gives again.
            start_worker(application, env=env, args=options[1:], pool="threads" if name == "webhooks" else "prefork")
        (tmp_path / "data.csv").write_text("a,b\n1,2\n")

        with WebhookReceiver() as receiver, redis.Redis.from_url(broker_url) as broker:
            script = (
                "from worker import taskstate\n"
                "from qhana_taskstate.demo import plugin\n"
                f"work = plugin.summarise.s({str(tmp_path / 'data.csv')!r}, {str(tmp_path)!r})\n"
                f"subscriber = dict(webhook_href={receiver.href()!r}, task_href='http://t/', event='status')\n"
                "task = taskstate.start(work, **subscriber)\n"
                "assert taskstate.wait(task.id, timeout=30).is_ok\n"
            )
            variables = {**os.environ, **env, "CELERY_BROKER_URL": broker_url}
            subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=variables, check=True, timeout=60)
            wait_until("the end was told", lambda: receiver.told(event="status"))
            assert {b"_kombu.binding.webhooks", b"_kombu.binding.celery"} <= set(broker.keys("_kombu.binding.*"))

    def test_the_page_is_served_as_in_the_container(
        self,
        services: dict[str, Any],
        postgres_server: PostgresServer,
        run_celery: RunCelery,
        broker_url: str,
        tmp_path: Path,
    ) -> None:
        service = services["web"]
        environment = {key: with_defaults(value) for key, value in service["environment"].items()}
        environment |= {"TASKSTATE_DATABASE_URL": postgres_server.create_database(), "CELERY_BROKER_URL": broker_url}
        assert run_celery(*command_of(services["migrate"])[1:], env=environment).returncode == 0
        port = free_port()
        server = LocalProcess(
            [sys.executable, "-m", *command_of(service), "--port", str(port)],
            log_path=tmp_path / "web.log",
            cwd=ROOT,
            env={**os.environ, **environment},
        )
        server.start()
        try:
            words = [with_defaults(word) for word in service["healthcheck"]["test"]]
            assert words[:2] == ["CMD", "python"]
            check = [sys.executable, *words[2:-1], words[-1].replace("5550", str(port))]

            def healthy() -> bool:
                return subprocess.run(check, capture_output=True, check=False).returncode == 0

            wait_until("the server is healthy", healthy, timeout=60)
            request = urllib.request.Request(f"http://127.0.0.1:{port}/tasks/")
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(request)  # noqa: S310
            assert refused.value.code == 401
            refused.value.close()
            request.add_header("Authorization", f"Bearer {environment['TASKSTATE_WEB_TOKEN']}")
            with urllib.request.urlopen(request) as answer:  # noqa: S310
                assert answer.headers["Server"] == "gunicorn"
        finally:
            server.close()


class TestDockerfile:
    def test_the_last_user_is_not_root(self, instructions: list[tuple[str, str]]) -> None:
        users = [value for word, value in instructions if word == "USER"]
        assert users
        assert users[-1] not in ("root", "0")

    def test_the_command_gets_its_signals_itself(self, instructions: list[tuple[str, str]]) -> None:
        word, value = instructions[-1]
        assert word == "CMD"
        assert yaml.safe_load(value)[:4] == ["celery", "-A", "worker", "worker"]

    def test_what_it_copies_is_there(self, instructions: list[tuple[str, str]]) -> None:
        sources = [name for word, value in instructions if word == "COPY" for name in value.split()[:-1]]
        assert "qhana_taskstate" in sources
        assert not [name for name in sources if not (ROOT / name).exists()]

    def test_it_starts_from_a_slim_python_that_the_package_supports(self, instructions: list[tuple[str, str]]) -> None:
        version = next(value for word, value in instructions if word == "ARG").partition("=")[2]
        assert tuple(map(int, version.split("."))) >= (3, 11)
        assert ("FROM", "python:${PYTHON_VERSION}-slim") in instructions
