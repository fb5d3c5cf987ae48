"""Redis and RabbitMQ as containers of pytest-celery that are local servers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pytest_celery import RabbitMQContainer, RedisContainer

from qhana_taskstate.testing.container.process_container import LocalProcessContainer
from qhana_taskstate.testing.process import LocalProcess, signal_number
from qhana_taskstate.testing.rabbitmq_server import RabbitMQServer
from qhana_taskstate.testing.redis_server import RedisServer
from qhana_taskstate.testing.server import HOST, LocalServer


class LocalServerContainer(LocalProcessContainer):
    """A container around one of the local servers."""

    def __init__(self, server: LocalServer, name: str | None = None) -> None:
        self.server = server
        super().__init__(name)

    @property
    def process(self) -> LocalProcess | None:
        """The server's process."""
        return self.server.process if self.server.started else None

    @property
    def open_ports(self) -> Sequence[int]:
        """The server's port."""
        return (self.server.port,)

    @property
    def working_folder(self) -> Path:
        """The server's folder."""
        return self.server.folder

    def start(self) -> None:
        """Start the server; it is ready when this returns."""
        self.server.start()

    def _answers(self) -> bool:
        return self.server.ready()

    def stop(self, timeout: float = 60.0, signal: str | int = "SIGTERM") -> int | None:
        """Stop the server in its own way; another signal than SIGTERM is sent as it is."""
        if signal_number(signal) == signal_number("SIGTERM"):
            self.server.stop(timeout)
            return self.exit_code
        return super().stop(timeout, signal)

    def restart(self, timeout: float = 10.0, *, keep_data: bool = True) -> None:
        """Stop and start on the same port; return once it is ready.

        Args:
            timeout: Seconds that the end may take before it is killed.
            keep_data: False lets it come back empty.
        """
        self.stop(timeout)
        if not keep_data:
            self.server.wipe()
        self.start()

    def remove(self, *args: object, **kwargs: object) -> None:
        """Kill the server and remove its folder."""
        self.server.close()
        self._removed = True

    @property
    def hostname(self) -> str:
        """The address of the server; there is one for the tests and the workers."""
        return HOST

    @property
    def port(self) -> int:
        """The port of the server."""
        return self.server.port

    @property
    def url(self) -> str:
        """The URL for workers."""
        return self.server.url

    @property
    def host_url(self) -> str:
        """The URL for the tests, which is the same one."""
        return self.server.url


class LocalRedis(LocalServerContainer, RedisContainer):  # type: ignore[misc] # pytest-celery ships no types
    """A private Redis, as broker or result backend. Its data survive `kill` and `restart`."""

    prefix_name = "redis"

    def __init__(self, name: str | None = None) -> None:
        super().__init__(RedisServer(), name)


class LocalRabbitMQ(LocalServerContainer, RabbitMQContainer):  # type: ignore[misc] # pytest-celery ships no types
    """A private RabbitMQ, as broker. Its durable queues survive `kill` and `restart`."""

    prefix_name = "rabbitmq"

    def __init__(self, name: str | None = None) -> None:
        super().__init__(RabbitMQServer(), name)
