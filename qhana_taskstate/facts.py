"""Values that travel between the parts: names of tasks and executions, what was published, how far it has come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from .texts import clean

#: How many characters of the unit of a progress are kept.
_UNIT_LENGTH: Final = 100

#: How many bytes of the newest log are in the JSON of the task resource.
DESCRIBED_LOG_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class TaskRef:
    """Names a task beyond doubt: ids of a database that was made anew come again, tokens do not.

    Attributes:
        task_id: Id of the `ProcessingTask`.
        token: Random text kept in its job row.
    """

    task_id: int
    token: str

    def encode(self) -> str:
        """Return the value of the message header."""
        return f"{self.task_id}:{self.token}"

    @classmethod
    def decode(cls, value: object) -> TaskRef | None:
        """Read the value of a message header; None if it is not one of ours."""
        if not isinstance(value, str):
            return None
        task_id, _, token = value.partition(":")
        return cls(int(task_id), token) if token and task_id.isascii() and task_id.isdigit() else None


@dataclass(frozen=True, slots=True)
class ExecutionKey:
    """Names one message of a task. A retry or a replacement keeps Celery's id; a redelivery keeps all three.

    Attributes:
        celery_id: Celery's id of the message.
        retries: Celery's count of retries, 0 for the first attempt.
        nesting: Celery's `replaced_task_nesting`, 0 for what was submitted.
    """

    celery_id: str
    retries: int = 0
    nesting: int = 0

    @classmethod
    def of_headers(cls, headers: Mapping[str, Any]) -> ExecutionKey | None:
        """Read the key from the headers of a message (protocol 2), None without an id."""
        celery_id = headers.get("id")
        if not celery_id:
            return None
        return cls(str(celery_id), int(headers.get("retries") or 0), int(headers.get("replaced_task_nesting") or 0))

    @classmethod
    def of_request(cls, request: Any) -> ExecutionKey | None:
        """Read the key from a Celery request (`task.request`, or the worker's own), None without an id."""
        if not getattr(request, "id", None):
            return None
        retries = getattr(request, "retries", None)
        if retries is None:
            retries = (getattr(request, "request_dict", None) or {}).get("retries")
        return cls(str(request.id), int(retries or 0), int(getattr(request, "replaced_task_nesting", None) or 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptMessage:
    """A message as it was published, so that it can be sent again.

    Attributes:
        exchange: Name of the exchange.
        routing_key: Its routing key.
        content_type: Of the body.
        content_encoding: Character set of the body; `binary` for one that is no text.
        body: The serialised arguments and what follows (chain, chord, callbacks); base64 of one that is no text.
        headers: JSON of the headers.
        properties: JSON of the properties.
    """

    exchange: str
    routing_key: str
    content_type: str
    content_encoding: str
    body: str = field(repr=False)
    headers: str = field(repr=False)
    properties: str = field(repr=False)


@dataclass(slots=True)
class Publication:
    """A message that was seen while it was published.

    Attributes:
        key: Key of the execution that it will be.
        name: Name of the Celery task.
        parent_id: Celery id of the execution that published it.
        queue: Name of the queue that it was sent to; None if only an exchange is known.
        published_at: Aware UTC.
        eta: Earliest begin, aware UTC.
        sent: Whether Celery said that it was handed to the broker.
        expires: When it is too late to begin it, aware UTC.
        message: The message itself, if it is to be kept.
    """

    key: ExecutionKey
    name: str
    parent_id: str | None
    queue: str | None
    published_at: datetime
    eta: datetime | None
    sent: bool = False
    expires: datetime | None = None
    message: KeptMessage | None = None


@dataclass(slots=True)
class Progress:
    """How far an execution has come, in the words of QHAna's task resource."""

    value: float
    start: float = 0.0
    target: float = 100.0
    unit: str = "%"

    def as_columns(self, prefix: str = "progress_") -> dict[str, object]:
        """Return it as values of the columns in which it is kept; a unit that is too long for them is cut.

        Args:
            prefix: What their names begin with.
        """
        unit = clean(self.unit)[:_UNIT_LENGTH]
        values = {"value": self.value, "start": self.start, "target": self.target, "unit": unit}
        return {prefix + name: value for name, value in values.items()}


@dataclass(frozen=True, slots=True)
class Reports:
    """What an execution reported and is not written yet.

    Attributes:
        lines: Log entries.
        progress: The newest progress.
        publications: Messages that it published.
    """

    lines: Sequence[str] = ()
    progress: Progress | None = None
    publications: Sequence[Publication] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an execution failed, as people read it."""

    type: str
    message: str
    traceback: str | None = None

    @property
    def summary(self) -> str:
        """Type and message in one line of text."""
        return f"{self.type}: {self.message}" if self.message else self.type


@dataclass(frozen=True, slots=True)
class StoredSuccess:
    """A success in Celery's result backend.

    Attributes:
        sent: Celery ids of the messages that the execution sent before its success was stored.
        in_group: Whether it is a member of a group or of the header of a chord; the last of those sends the body of
            the chord after its success is stored.
    """

    sent: frozenset[str]
    in_group: bool
