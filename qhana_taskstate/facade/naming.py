"""Tasks as callers name them: by row, by id, by the text of an id."""

from __future__ import annotations

from ..errors import TaskNotFoundError
from ..ids import row_id
from ..models.task import ProcessingTask


def id_of(task: ProcessingTask | int | str) -> int:
    """Return the id of a task that a caller names.

    Raises:
        TaskNotFoundError: If it can be no task, or is not saved yet.
    """
    if isinstance(task, ProcessingTask):
        if task.id is None:
            raise TaskNotFoundError(None)
        return int(task.id)
    task_id = row_id(task)
    if task_id is None:
        raise TaskNotFoundError(task)
    return task_id


def row_of(task_id: int, *, named: object = None) -> ProcessingTask:
    """Return the row of a task, read anew.

    Args:
        task_id: Its id.
        named: The task as the caller named it, for the error; the id by default.

    Raises:
        TaskNotFoundError: If there is no such task.
    """
    task = ProcessingTask.get_by_id(task_id)
    if task is None:
        raise TaskNotFoundError(task_id if named is None else named)
    return task
