"""Connects the classes with what their changes lead to: once, when they are imported."""

from __future__ import annotations

from ..context.current import inside_execution_of
from ..database.sessions.current import current_sessions
from .base import Base
from .changes import checks, flush, raised_events, statements
from .file import TaskFile
from .link import TaskLink
from .step import Step
from .subscription import TaskUpdateSubscription
from .task import ProcessingTask

checks.listen(Base.registry.mappers)
flush.listen(ProcessingTask, Step, (Step, TaskFile, TaskLink, TaskUpdateSubscription), inside_execution_of)
statements.listen(ProcessingTask, Step, (TaskFile, TaskLink), TaskUpdateSubscription)
raised_events.listen(Step, (TaskFile, TaskLink), TaskUpdateSubscription, lambda: current_sessions().database.announce())
