"""Ends a task by hand, whatever of it is open: `finish` and `cancel`."""

from __future__ import annotations

from functools import partial

from ..database.sessions.own_locks import refuse_own_lock
from ..errors import TaskNotFoundError
from ..states import TaskStatus
from ..store.task import jobs
from ..store.task_end import from_outside
from .execution_recorder import ExecutionRecorder


def end_by_hand(
    recorder: ExecutionRecorder, task_id: int, status: TaskStatus, entry: str | None, *, named: object
) -> bool:
    """End a task, and commit.

    Args:
        recorder: Where facts go.
        task_id: Id of the task.
        status: SUCCESS or ERROR.
        entry: A last log entry.
        named: The task as the caller named it, for the error.

    Returns:
        False if the task had already ended.

    Raises:
        TaskNotFoundError: If there is no such task.
    """
    if recorder.sessions.open_write():
        # Our own connection would wait for the caller's open transaction, in the same thread.
        recorder.sessions.current.commit()
    refuse_own_lock(recorder.database, None)
    if not recorder.database.read(partial(jobs.has_task, task_id=task_id)):
        raise TaskNotFoundError(named)
    outcome = recorder.write(partial(from_outside.end, task_id=task_id, status=status, entry=entry))
    recorder.finish_showing(task_id, outcome)
    return outcome.ended is not None
