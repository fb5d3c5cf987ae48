"""The executions of a task as a tree of messages, each with its attempts. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .rows.views import ExecutionView


@dataclass(eq=False)
class Message:
    """One Celery id of a task: its attempts and replacements, and what they published.

    Attributes:
        attempts: By nesting and retries; at least one.
        children: Messages that these executions published, in the order of their publication.
    """

    attempts: list[ExecutionView]
    children: list[Message] = field(default_factory=list)

    @property
    def last(self) -> ExecutionView:
        """The newest attempt."""
        return self.attempts[-1]


def tree(executions: Sequence[ExecutionView]) -> list[Message]:
    """Arrange executions as a tree.

    Attempts and replacements of one message share its Celery id. A message belongs below the execution that
    published it; one whose publisher is unknown is a root. The last task of a replacement carries the id of the
    task that it replaces, as its own and as its publisher's (celery 5.5 to 5.7, `Task.replace`): that circle is
    no relation.

    Args:
        executions: Of one task, in the order in which their messages are to stand.

    Returns:
        The roots; each execution is in the tree exactly once.
    """
    messages: dict[str, Message] = {}
    for execution in executions:
        known = messages.get(execution.celery_id)
        if known is None:
            messages[execution.celery_id] = Message([execution])
        else:
            known.attempts.append(execution)
    parents: dict[str, str] = {}
    for celery_id, message in messages.items():
        message.attempts.sort(key=lambda attempt: (attempt.nesting, attempt.retries))
        parent = next((a.parent_id for a in message.attempts if a.parent_id and a.parent_id != celery_id), None)
        if parent in messages and not _descends(parent, celery_id, parents):
            parents[celery_id] = parent
    roots = []
    for celery_id, message in messages.items():
        if celery_id in parents:
            messages[parents[celery_id]].children.append(message)
        else:
            roots.append(message)
    return roots


def _descends(celery_id: str, ancestor: str, parents: dict[str, str]) -> bool:
    here: str | None = celery_id
    while here is not None:
        if here == ancestor:
            return True
        here = parents.get(here)
    return False
