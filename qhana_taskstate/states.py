"""The words of a task's and an execution's state, and the pure rules between them. Knows no rows."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from .errors import StatusError


class TaskStatus(StrEnum):
    """Status of a `ProcessingTask`, in the words of its documentation."""

    PENDING = "PENDING"
    SUCCESS = "SUCCESS"
    ERROR = "ERROR"


class ExecutionState(StrEnum):
    """State of one Celery message of a task. Celery's words; QUEUED is a message that was published."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    RETRY = "RETRY"
    IGNORED = "IGNORED"
    REVOKED = "REVOKED"
    REJECTED = "REJECTED"
    LOST = "LOST"


#: Celery's own task that asks, again and again, whether the header of a chord is ready.
CHORD_UNLOCK: Final = "celery.chord_unlock"


#: Words that mean "ended in an error" in the rows of existing plugins, and in ours.
ERROR_WORDS: Final = frozenset({"ERROR", "FAILURE"})

#: What `ProcessingTask.status` says of a row that has an end but no word for it.
UNKNOWN: Final = "UNKNOWN"

#: States in which an execution is still to come or under way.
OPEN_STATES: Final = frozenset({ExecutionState.QUEUED, ExecutionState.RUNNING})

#: States that end the whole task as ERROR.
FAILED_STATES: Final = frozenset(
    {ExecutionState.FAILURE, ExecutionState.REVOKED, ExecutionState.REJECTED, ExecutionState.LOST}
)

#: What Celery's `task_postrun` may carry as `state` when the execution is really over (celery 5.5 to 5.7:
#: `None` and REJECTED are sent although the message may be delivered again).
CLOSING_POSTRUN_STATES: Final = frozenset(
    {ExecutionState.SUCCESS, ExecutionState.FAILURE, ExecutionState.IGNORED, ExecutionState.RETRY}
)


def is_terminal(word: str | None) -> bool:
    """Tell whether a status word ends a task.

    Args:
        word: What is, or would be, in `task_status`.

    Returns:
        False for None and PENDING, True for every other word.
    """
    return word is not None and word != TaskStatus.PENDING


def check_status(word: str | None) -> str | None:
    """Check a word that is about to be assigned to `task_status`.

    Args:
        word: None, PENDING, SUCCESS, ERROR, or FAILURE (which existing plugins write and which means ERROR).

    Returns:
        The word, FAILURE turned into ERROR.

    Raises:
        StatusError: For any other value.
    """
    if word is None:
        return None
    if isinstance(word, str):
        if word in ERROR_WORDS:
            return TaskStatus.ERROR.value
        if word in (TaskStatus.PENDING, TaskStatus.SUCCESS):
            return str(word)
    raise StatusError(
        f"{word!r} is no task status; use None, 'PENDING', 'SUCCESS' or 'ERROR' ('FAILURE' means 'ERROR')"
    )


def check_end(word: str) -> TaskStatus:
    """Check the word for the end that a caller gives a task.

    Returns:
        SUCCESS or ERROR.

    Raises:
        StatusError: If it is neither.
    """
    checked = check_status(word)
    if not is_terminal(checked):
        raise StatusError(f"a task cannot be finished as {word!r}; use 'SUCCESS' or 'ERROR'")
    return TaskStatus(str(checked))


def with_error_word(word: str | None, error_word: str) -> str | None:
    """Replace either word for a failed task by the one that is wanted.

    Args:
        word: A status word; words other than ERROR and FAILURE pass unchanged.
        error_word: The wanted word.
    """
    return error_word if word in ERROR_WORDS else word


def still_pending(task_id: int, timeout: float | None) -> TimeoutError:
    """Make the error that a task has not ended in time.

    Args:
        task_id: Id of the task.
        timeout: For how many seconds it was waited for.
    """
    return TimeoutError(
        f"task {task_id} is still {TaskStatus.PENDING} after {timeout} s; Celery's command `taskstate show {task_id}` "
        "says what it does or waits for"
    )
