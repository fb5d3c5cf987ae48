"""The command line: `celery -A worker taskstate`."""

from __future__ import annotations

from . import end, operations, run, tasks, webhooks  # noqa: F401 - each adds its commands to the group
from .group import taskstate

__all__ = ["taskstate"]
