"""Asks for the task of a plugin task's message that carries none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..facts import Publication, TaskRef
from ..ids import row_id
from ..plugin.arguments import TASK_ID_PARAMETER, named_task_id
from .listener import Listener
from .selection import is_plain


def adopt(
    listener: Listener,
    task: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    publication: Publication,
    *,
    redelivered: bool,
) -> TaskRef | None:
    """Find or make the task of a message; None if it is not known yet, or if there is none.

    A plugin task names its task by the keyword `db_id`. One that is tracked without the decorator does so by its
    position too; what it gives there may also mean something else, and then it becomes a job of its own.
    """
    if not is_plain(task):
        return listener.adopt(task.name, kwargs, publication, redelivered=redelivered)
    given = named_task_id(task.plugin_signature, args, kwargs)
    named = {} if row_id(given) is None else {TASK_ID_PARAMETER: given}
    ref = listener.adopt(task.name, named, publication, redelivered=redelivered)
    if ref is None and named and publication.sent:
        # A row that is not there when the message arrives is not committed later.
        return listener.adopt(task.name, {}, publication, redelivered=redelivered)
    return ref
