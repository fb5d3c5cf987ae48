"""What is refused before anything is written."""

from __future__ import annotations

from ...errors import StepNotOpenError
from ...models.task import ProcessingTask
from ...texts import is_storable


def is_storable_href(text: object) -> bool:
    """Tell whether this is a text that says something and that every database takes."""
    if not isinstance(text, str) or not text.strip():
        return False
    return is_storable(text)


def check_answer(row: ProcessingTask, answers: str | int) -> None:
    last = row.steps[-1] if row.steps else None
    if last is None:
        raise StepNotOpenError(row.id, answers, "the task has no step")
    if str(last.step_id) != str(answers):
        raise StepNotOpenError(row.id, answers, f"the newest step is {last.step_id!r}")
    if last.cleared:
        raise StepNotOpenError(row.id, answers, "it was answered before")
