"""Nodes for pytest-celery that are local processes instead of containers."""

from __future__ import annotations

from qhana_taskstate.testing.container.process_container import LocalProcessContainer
from qhana_taskstate.testing.container.server_container import LocalRabbitMQ, LocalRedis, LocalServerContainer
from qhana_taskstate.testing.container.worker_container import LocalWorker

__all__ = ["LocalProcessContainer", "LocalRabbitMQ", "LocalRedis", "LocalServerContainer", "LocalWorker"]
