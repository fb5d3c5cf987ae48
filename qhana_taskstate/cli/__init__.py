"""The command line: `celery -A worker taskstate`."""

from __future__ import annotations

from . import commands  # noqa: F401 - adds the commands to the group
from .group import taskstate

__all__ = ["taskstate"]
