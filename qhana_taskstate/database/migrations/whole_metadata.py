"""The metadata with every table in it; a process that needs few tables imports the modules of those alone."""

from __future__ import annotations

from ..tables import deliveries, executions, jobs, log, runner, upkeep
from ..tables.base import metadata

__all__ = ["deliveries", "executions", "jobs", "log", "metadata", "runner", "upkeep"]
