"""The six classes that plugins and web routes work with, on the tables of the QHAna plugin runner."""

from __future__ import annotations

from ..store.task_end.end import TaskFinishedWarning
from . import listening as _listening  # noqa: F401 - connects the classes with what their changes lead to
from .base import Base
from .file import TaskFile
from .link import TaskLink
from .step import Step
from .subscription import TaskUpdateSubscription, WebhookRef
from .task import ProcessingTask

__all__ = [
    "Base",
    "ProcessingTask",
    "Step",
    "TaskFile",
    "TaskFinishedWarning",
    "TaskLink",
    "TaskUpdateSubscription",
    "WebhookRef",
]
