"""Durable, true task state for Celery: one SQL row a job, kept in step by Celery's own signals."""

from __future__ import annotations

# What can go wrong
from .errors import (
    ArgumentsError,
    BrokerUnavailableError,
    DatabaseUnavailableError,
    DataValueError,
    DuplicateExecutionError,
    EventError,
    ForkedSessionError,
    NotConfiguredError,
    NotInExecutionError,
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
from .integration import TaskState, taskstate

# The rows
from .models import (
    ProcessingTask,
    Step,
    TaskFile,
    TaskFinishedWarning,
    TaskLink,
    TaskUpdateSubscription,
    WebhookRef,
)

# Write plugin tasks
from .plugin import plugin_task
from .progress import add_log, add_output, report_progress, track

# Remove old tasks
from .pruning import Pruned, RemovedOutput

__all__ = [
    "ArgumentsError",
    "BrokerUnavailableError",
    "DataValueError",
    "DatabaseUnavailableError",
    "DuplicateExecutionError",
    "EventError",
    "ForkedSessionError",
    "NotConfiguredError",
    "NotInExecutionError",
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
