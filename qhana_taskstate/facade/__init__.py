"""`TaskState`, the object that an application calls, and the process's own one."""

from __future__ import annotations

from .task_state import TaskState, taskstate

__all__ = ["TaskState", "taskstate"]
