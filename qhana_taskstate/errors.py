"""The error tree: one root, every name ends in Error, every message says what was seen and what to do."""

from __future__ import annotations

from kombu.exceptions import OperationalError as BrokerOperationalError

from .events import event_words


class TaskStateError(Exception):
    """Root of every error that this package raises on purpose."""


class SettingsError(TaskStateError, ValueError):
    """A `taskstate_` setting is unknown or has a value that makes no sense."""


class NotConfiguredError(TaskStateError, RuntimeError):
    """No `TaskState` was made in this process, so there is nothing to work with."""


class DatabaseUnavailableError(TaskStateError, ConnectionError):
    """The database of the task states cannot be reached or refused the work."""


class SchemaError(TaskStateError, RuntimeError):
    """The tables are missing or older than this version of the package can work with."""


class HostModelsError(TaskStateError, RuntimeError):
    """The models of a host cannot be replaced by ours."""


class BrokerUnavailableError(TaskStateError, BrokerOperationalError):
    """The message broker cannot be reached. Also a `kombu.exceptions.OperationalError`, as Celery raises."""


class TaskNotFoundError(TaskStateError, LookupError):
    """No `ProcessingTask` has this id.

    Attributes:
        task_id: The id that was asked for, as given.
    """

    def __init__(self, task_id: object) -> None:
        super().__init__(f"no ProcessingTask has the id {task_id!r}; pass the id of a saved task")
        self.task_id = task_id


class TaskFinishedError(TaskStateError, RuntimeError):
    """Work was started for a task that has already ended; nothing was sent.

    Attributes:
        task_id: Id of the finished task.
        status: The status it ended with.
    """

    def __init__(self, task_id: int, status: str) -> None:
        super().__init__(f"task {task_id} has already ended as {status}; start a new task instead")
        self.task_id = task_id
        self.status = status


class NotRestartableError(TaskStateError, RuntimeError):
    """The first work of a task was not kept, so that it cannot be started again.

    Attributes:
        task_id: Id of the task.
    """

    def __init__(self, task_id: int) -> None:
        super().__init__(
            f"task {task_id} cannot be started again: its work was not kept; declare its plugin task with "
            "@plugin_task(restartable=True) before the next start"
        )
        self.task_id = task_id


class StepNotOpenError(TaskStateError, RuntimeError):
    """The step to be answered is not (or no longer) waiting for an answer; nothing was sent.

    Attributes:
        task_id: Id of the task.
        step_id: The step that the caller wanted to answer.
    """

    def __init__(self, task_id: int, step_id: object, seen: str) -> None:
        super().__init__(f"step {step_id!r} of task {task_id} cannot be answered: {seen}")
        self.task_id = task_id
        self.step_id = step_id


class ArgumentsError(TaskStateError, TypeError):
    """Arguments make no sense: those of a task do not fit it or cannot be serialised; nothing was written."""


class DuplicateExecutionError(TaskStateError, ValueError):
    """The Celery id given for a new message is already in use within its task."""


class NotInExecutionError(TaskStateError, RuntimeError):
    """Something that needs a running execution was called outside of one."""


class ForkedSessionError(TaskStateError, RuntimeError):
    """A process used a session of the process that forked it; nothing was sent to the database.

    Attributes:
        pid: The process that was forked.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(
            f"process {pid} was forked and must not use the session of its parent; read the rows anew inside "
            "`with taskstate.session_scope():`, or leave the database to the parent"
        )
        self.pid = pid


class OwnTransactionError(TaskStateError, RuntimeError):
    """A write would wait for a transaction that the same thread has open; nothing was written or sent.

    Attributes:
        database: The SQLite database, without secrets.
    """

    def __init__(self, database: str) -> None:
        super().__init__(
            f"this thread has an open transaction on {database}, and SQLite lets one connection write at a time: it "
            "would wait for itself; use start_on_commit(...), or commit first"
        )
        self.database = database


class ProgressError(TaskStateError, ValueError, TypeError):
    """A progress value is not a finite number."""


class DataValueError(TaskStateError, ValueError):
    """A value cannot be held by JSON; the message names its path."""


class TextTooLongError(TaskStateError, ValueError):
    """A text is longer than the column that should hold it."""


class TextCharacterError(TaskStateError, ValueError):
    """A text that machines follow holds a character that no database takes; nothing was written.

    Attributes:
        member: What the text is for, such as `Step.href`.
        character: The character, such as `U+0000 (NUL)`.
        position: Where it stands, from 0.
    """

    def __init__(self, member: str, character: str, position: int) -> None:
        super().__init__(
            f"{member} holds {character} at position {position}, which no database takes; leave it out or encode it"
        )
        self.member = member
        self.character = character
        self.position = position

    def __reduce__(self) -> tuple[type[TextCharacterError], tuple[str, str, int]]:
        """Make it picklable, as a prefork pool needs it."""
        return type(self), (self.member, self.character, self.position)


class CeleryIdError(TextCharacterError, ArgumentsError):
    """An id that somebody chose for a message holds a character that no database takes; nothing was sent."""


class StatusError(TaskStateError, ValueError):
    """A word that is no task status was assigned."""


class EventError(TaskStateError, ValueError):
    """A webhook was to be told of an event that there is none of.

    Attributes:
        event: What was asked for.
    """

    def __init__(self, event: object) -> None:
        super().__init__(f"{event!r} is no event; use {event_words()}, or None for all of them")
        self.event = event


class WebhookTargetError(TaskStateError, ValueError):
    """A webhook URL is unusable, or leads where webhooks may not go; nothing was sent.

    Attributes:
        shown: The URL as it may be shown: without credentials, fragment, and the values of its query.
        reason: What is wrong with it.
    """

    def __init__(self, shown: str, reason: str) -> None:
        super().__init__(f"the webhook {shown} cannot be used: {reason}")
        self.shown = shown
        self.reason = reason


class WebhookVerificationError(TaskStateError, ValueError):
    """A received webhook is not what its sender signed, is too old, or is malformed; do not act on it."""
