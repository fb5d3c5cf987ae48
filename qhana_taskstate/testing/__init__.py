"""Real servers and workers as local processes, for the tests of plugins and of this package.

`plugin` is a pytest plugin with fixtures for all of it; the servers alone need no pytest.
"""

from __future__ import annotations

from qhana_taskstate.testing.mariadb_server import MariaDBServer
from qhana_taskstate.testing.postgres_server import PostgresServer
from qhana_taskstate.testing.process import LocalProcess, ProcessError
from qhana_taskstate.testing.rabbitmq_server import RabbitMQServer
from qhana_taskstate.testing.redis_server import RedisServer
from qhana_taskstate.testing.server import LocalServer, ServerMissingError, ServerStartError
from qhana_taskstate.testing.sql_server import SqlServer
from qhana_taskstate.testing.waiting import wait_until

__all__ = [
    "LocalProcess",
    "LocalServer",
    "MariaDBServer",
    "PostgresServer",
    "ProcessError",
    "RabbitMQServer",
    "RedisServer",
    "ServerMissingError",
    "ServerStartError",
    "SqlServer",
    "wait_until",
]
