"""Durable, true task state for Celery: one SQL row a job, kept in step by Celery's own signals."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# What can go wrong
from .errors import (
    ArgumentsError,
    BrokerUnavailableError,
    DatabaseUnavailableError,
    DataValueError,
    DuplicateExecutionError,
    EventError,
    ForkedSessionError,
    HostModelsError,
    NotConfiguredError,
    NotInExecutionError,
    NotRestartableError,
    OwnTransactionError,
    ProgressError,
    SchemaError,
    SettingsError,
    StatusError,
    StepNotOpenError,
    TaskFinishedError,
    TaskNotFoundError,
    TaskStateError,
    TextCharacterError,
    TextTooLongError,
    WebhookTargetError,
    WebhookVerificationError,
)

# Make a Celery app track its tasks
from .facade import TaskState, taskstate
from .facade.plugin_task import plugin_task
from .models.file import TaskFile
from .models.link import TaskLink
from .models.step import Step
from .models.subscription import TaskUpdateSubscription, WebhookRef

# The rows
from .models.task import ProcessingTask

# Write plugin tasks
from .plugin.reporting.outputs import add_output
from .plugin.reporting.reports import add_log, report_progress, track
from .store.task_end.end import TaskFinishedWarning

if TYPE_CHECKING:
    # Name tasks in the lines of a log
    from .plugin.reporting.log_context import LOG_FORMAT, TaskLogFilter

    # Remove old tasks
    from .upkeep.pruning import Pruned
    from .upkeep.removal import RemovedOutput

__all__ = [
    "LOG_FORMAT",
    "ArgumentsError",
    "BrokerUnavailableError",
    "DataValueError",
    "DatabaseUnavailableError",
    "DuplicateExecutionError",
    "EventError",
    "ForkedSessionError",
    "HostModelsError",
    "NotConfiguredError",
    "NotInExecutionError",
    "NotRestartableError",
    "OwnTransactionError",
    "ProcessingTask",
    "ProgressError",
    "Pruned",
    "RemovedOutput",
    "SchemaError",
    "SettingsError",
    "StatusError",
    "Step",
    "StepNotOpenError",
    "TaskFile",
    "TaskFinishedError",
    "TaskFinishedWarning",
    "TaskLink",
    "TaskLogFilter",
    "TaskNotFoundError",
    "TaskState",
    "TaskStateError",
    "TaskUpdateSubscription",
    "TextCharacterError",
    "TextTooLongError",
    "WebhookRef",
    "WebhookTargetError",
    "WebhookVerificationError",
    "add_log",
    "add_output",
    "plugin_task",
    "report_progress",
    "taskstate",
    "track",
]

#: What is imported when it is first asked for, since few need it.
_LATE = {
    "LOG_FORMAT": "plugin.reporting.log_context",
    "Pruned": "upkeep.pruning",
    "RemovedOutput": "upkeep.removal",
    "TaskLogFilter": "plugin.reporting.log_context",
}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LATE[name]}"), name)
