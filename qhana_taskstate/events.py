"""The events of a task, of which subscribers may choose one: the only list of them."""

from __future__ import annotations

from enum import StrEnum


class TaskEvent(StrEnum):
    """What changed about a task, in the words that subscribers know."""

    #: The task ended.
    STATUS = "status"
    #: A step was added or cleared.
    STEPS = "steps"
    #: Log, progress, outputs, links or data changed, or the task ended.
    DETAILS = "details"


def event_words() -> str:
    """Return the words of all events as a sentence names them: `'a', 'b' or 'c'`."""
    *first, last = (repr(event.value) for event in TaskEvent)
    return f"{', '.join(first)} or {last}"
