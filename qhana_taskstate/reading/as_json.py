"""What is read of tasks, as JSON for scripts. Pure."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Any

from .rows.views import ExecutionView, TaskDetail, TaskView


def task_json(task: TaskView) -> dict[str, Any]:
    """Return a task for `json.dumps`; the names are those of `TaskView`, times are ISO 8601 in UTC."""
    return dict(fields(task))


def detail_json(detail: TaskDetail) -> dict[str, Any]:
    """Return all of a task for `json.dumps`: what `task_json` gives, and beside it the fields of `TaskDetail`."""
    rest = {name: value for name, value in fields(detail) if name != "task"}
    rest["executions"] = [execution_json(execution) for execution in detail.executions]
    return {**task_json(detail.task), **rest}


def execution_json(execution: ExecutionView) -> dict[str, Any]:
    return {**dict(fields(execution)), "attempt": execution.attempt, "max_attempts": execution.max_attempts}


def fields(value: Any) -> list[tuple[str, Any]]:
    return [(field.name, _plain(getattr(value, field.name))) for field in dataclasses.fields(value)]


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return dict(fields(value))
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value.isoformat() if isinstance(value, datetime) else value
