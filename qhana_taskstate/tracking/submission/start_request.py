"""What `start` was asked for, once it is checked: a value that the commit and the publishing read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from celery.canvas import Signature

from ...facts import ExecutionKey
from ...store.task.first_work import KeptWork
from ..subscribing.subscriber import Subscriber
from .canvas import Leaf, chosen_ids, is_leaf, name_of


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRequest:
    """Work to be started.

    Attributes:
        canvas: It; a copy of what the caller gave.
        leaves: Its signatures.
        task_name: Name for the task, None to leave it as it is.
        parameters: Text for its parameters, None likewise.
        finishes: See `TaskState.start`.
        answers: Likewise.
        subscriber: Who is to be notified.
        options: Celery's options for all of it.
        kept: The work as it is kept for a restart, None if no restart is asked for.
    """

    canvas: Signature
    leaves: list[Leaf]
    task_name: str | None
    parameters: str | None
    finishes: bool | None
    answers: str | int | None
    subscriber: Subscriber | None
    options: Mapping[str, Any]
    kept: KeptWork | None

    @property
    def name(self) -> str:
        """Name for a new task."""
        return self.task_name or name_of(self.canvas, self.leaves)

    @property
    def chosen_keys(self) -> set[ExecutionKey]:
        """Keys of the messages whose Celery ids the caller chose."""
        ids = {*chosen_ids(self.leaves), *filter(None, [self.options.get("task_id")])}
        return {ExecutionKey(celery_id) for celery_id in ids}

    @property
    def message_options(self) -> Mapping[str, Any]:
        """Celery's options to publish with; the id of a single signature is written into the signature itself."""
        if not is_leaf(self.canvas):
            return self.options
        return {name: value for name, value in self.options.items() if name != "task_id"}
