"""Tasks seen from outside: the task resource, and a page (the extra `web`)."""

from __future__ import annotations

from .access import Check
from .blueprint import task_blueprint
from .files import FileUrl

__all__ = ["Check", "FileUrl", "task_blueprint"]
