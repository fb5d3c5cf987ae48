"""A private RabbitMQ as a local process."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Mapping
from pathlib import Path

from kombu import Connection
from kombu.exceptions import OperationalError

from qhana_taskstate.testing.server import (
    HOST,
    LocalServer,
    ServerMissingError,
    ServerStartError,
    find_program,
    free_port,
)

_CONTROL_SECONDS = 60
#: Debian's wrappers in /usr/sbin insist on its own user; the scripts themselves do not.
_FOLDERS = ("/usr/lib/rabbitmq/bin", "/usr/local/lib/rabbitmq/bin", "/opt/rabbitmq/sbin")


class RabbitMQServer(LocalServer):
    """A real RabbitMQ from the system's packages (Debian: rabbitmq-server) with a node name of its own."""

    kind = "rabbitmq"
    start_seconds = 120.0

    def __init__(self) -> None:
        super().__init__()
        self._node = f"taskstate_{secrets.token_hex(4)}@localhost"
        self._mapper_port = free_port()
        self._node_port = free_port()

    @property
    def url(self) -> str:
        """URL of the virtual host `/`, for Celery's broker."""
        return f"amqp://guest:guest@{HOST}:{self.port}//"

    def create_vhost(self) -> str:
        """Make a virtual host with a new name, which takes a second or two. Returns its URL."""
        name = f"test_{secrets.token_hex(6)}"
        self.control("add_vhost", name)
        self.control("set_permissions", "-p", name, "guest", ".*", ".*", ".*")
        return f"amqp://guest:guest@{HOST}:{self.port}/{name}"

    def control(self, *arguments: str) -> str:
        """Run `rabbitmqctl` against this server.

        Returns:
            What it printed.

        Raises:
            ServerStartError: It failed.
        """
        done = subprocess.run(
            [str(self._program("rabbitmqctl")), "--node", self._node, "--quiet", *arguments],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env=dict(self._environment()),
            timeout=_CONTROL_SECONDS,
            cwd=self.folder,
            check=False,
        )
        if done.returncode != 0:
            raise ServerStartError(f"rabbitmqctl {arguments[0]} failed:\n{(done.stdout + done.stderr)[-2000:]}")
        return done.stdout

    def ready(self) -> bool:
        """Whether it lets a client log in now."""
        if not self.running:
            return False
        with Connection(self.url, connect_timeout=5) as connection:
            try:
                # Turns whatever the driver raises into one of kombu's own errors.
                connection.ensure_connection(max_retries=1, interval_start=0, timeout=5)
            except OperationalError:
                return False
        return True

    def _environment(self) -> Mapping[str, str]:
        return {
            **os.environ,
            # Holds the cookie that lets rabbitmqctl talk to the node.
            "HOME": str(self.folder),
            "ERL_EPMD_ADDRESS": HOST,
            "ERL_EPMD_PORT": str(self._mapper_port),
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_NODE_IP_ADDRESS": HOST,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._node_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_MNESIA_BASE": str(self.data_folder),
            "RABBITMQ_LOG_BASE": str(self.folder),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.folder / "advanced.config"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "rabbitmq-env.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_FEATURE_FLAGS_FILE": str(self.data_folder / "feature_flags"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_SCHEDULER_BIND_TYPE": "u",
        }

    def _prepare(self) -> None:
        self.data_folder.mkdir(exist_ok=True)
        (self.folder / "enabled_plugins").write_text("[].\n")
        (self.folder / "rabbitmq.conf").write_text("log.console.level = warning\ndisk_free_limit.absolute = 50MB\n")

    def _command(self) -> list[str]:
        return [str(self._program("rabbitmq-server"))]

    def _program(self, name: str) -> Path:
        program = find_program(name, folders=_FOLDERS)
        if program is None or find_program("erl") is None:
            raise ServerMissingError("there is no RabbitMQ; apt-get install rabbitmq-server")
        return program
