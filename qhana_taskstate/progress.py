"""What plugin code says about its work while it runs: progress, log, outputs. Only memory on the hot path."""

from __future__ import annotations

import logging
import math
import mimetypes
import secrets
from collections.abc import Iterable, Iterator
from copy import copy
from operator import length_hint
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

from .belonging import current_execution
from .errors import NotInExecutionError, ProgressError, TaskNotFoundError, TextTooLongError
from .facts import Progress
from .failures import is_of_database, summary_of
from .models import ProcessingTask, TaskFile
from .reporter import reporting_execution
from .sessions import current_session

T = TypeVar("T")

#: Length of the column that holds the unit.
UNIT_LENGTH = 100

#: What a TaskFile says of a file on the file system that server and workers share.
LOCAL_PROVIDER = "local_filesystem"


def report_progress(
    value: float, *, start: float | None = None, target: float | None = None, unit: str | None = None
) -> None:
    """Say how far the running execution has come. Cheap: kept in memory and written a few times a second.

    Args:
        value: How far, in the unit.
        start: The value at the beginning; None keeps what was said before, at first 0.
        target: The value at the end; None keeps what was said before, at first 100.
        unit: Name of the unit, at most 100 characters; None keeps what was said before, at first "%".

    Raises:
        ProgressError: (a ValueError and a TypeError) If a number is none, or not finite.
        TextTooLongError: If the unit is too long.

    Outside an execution the values are checked and nothing else happens. A thread that a plugin task has started
    reports for it where no other execution runs in the process; elsewhere run it through `taskstate.bound`. A process
    that a plugin task has started reports nothing, and warns once.
    """
    numbers = {"value": value, "start": start, "target": target}
    checked = {name: _number(name, number) for name, number in numbers.items() if number is not None}
    if "value" not in checked:
        raise ProgressError("progress value None is no number; report how far the task has come")
    if unit is not None and not isinstance(unit, str):
        raise ProgressError(f"progress unit {unit!r} is no text")
    if unit is not None and len(unit) > UNIT_LENGTH:
        raise TextTooLongError(f"progress unit of {len(unit)} characters is too long; {UNIT_LENGTH} are kept")
    execution = reporting_execution()
    if execution is None:
        return
    before = execution.progress or Progress(0.0)
    execution.progress = Progress(
        checked["value"],
        checked.get("start", before.start),
        checked.get("target", before.target),
        before.unit if unit is None else unit,
    )
    execution.progress_dirty = True


def _number(name: str, number: object) -> float:
    try:
        # numpy's and decimal's numbers count; a text is no number though float() would read it.
        converted = math.nan if isinstance(number, (str, bytes, bool)) else float(number)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        converted = math.nan
    if not math.isfinite(converted):
        raise ProgressError(f"progress {name} {number!r} is no finite number")
    return converted


def track(iterable: Iterable[T], *, total: float | None = None, unit: str = "items") -> Iterator[T]:
    """Pass the items of an iterable on and report after each how many have been worked on.

    Args:
        iterable: What to go through.
        total: How many items there are; None asks the iterable, and where it does not know either, the target
            moves along.
        unit: What an item is.

    Yields:
        The items.
    """
    known = length_hint(iterable, -1) if total is None else _number("total", total)
    count = 0
    report_progress(0, start=0, target=known if known >= 0 else 1, unit=unit)
    for item in iterable:
        yield item
        count += 1
        report_progress(count, target=known if known >= 0 else count + 1)
    report_progress(count, target=known if known >= 0 else count)


def add_log(text: str) -> None:
    """Add an entry to the log of the running execution's task. Kept in memory and written a few times a second.

    It is there after any end that lets code run, also if the execution fails and its session rolls back. Outside
    an execution nothing happens.

    Args:
        text: One or several lines; an empty text adds nothing.

    Raises:
        TypeError: If it is no text.
    """
    if not isinstance(text, str):
        raise TypeError(f"a log entry is a text, not {type(text).__name__} {text!r}; use str()")
    execution = reporting_execution()
    if execution is not None and text:
        execution.lines.append(text)


def add_output(path: str | Path, *, file_type: str, mimetype: str | None = None, name: str | None = None) -> TaskFile:
    """Register a local file as an output of the running execution's task, in the current session.

    Commits: no; the session of a plugin task is committed when its function returns.

    Args:
        path: The file; must exist. Its absolute path is stored, so that server and workers must share it.
        file_type: QHAna's type of the data, for example "entity/label".
        mimetype: Type of the format; None guesses from the name.
        name: Name shown to people; None takes the name of the file.

    Returns:
        The new `TaskFile` with a random security tag.

    Raises:
        FileNotFoundError: If there is no such file.
        NotInExecutionError: If called outside an execution.
        TaskNotFoundError: If the row of the task was deleted meanwhile.
    """
    file = Path(path).resolve()
    if not file.is_file():
        raise FileNotFoundError(f"no file {str(path)!r} to register as an output; write it first")
    execution = current_execution()
    if execution is None:
        raise NotInExecutionError("add_output needs a running execution; create a TaskFile for a task by hand instead")
    task = ProcessingTask.get_by_id(execution.ref.task_id)
    if task is None:
        raise TaskNotFoundError(execution.ref.task_id)
    output = TaskFile(
        task=task,
        security_tag=secrets.token_urlsafe(32),
        storage_provider=LOCAL_PROVIDER,
        file_name=name or file.name,
        file_storage_data=str(file),
        file_type=file_type,
        mimetype=mimetype or mimetypes.guess_type(file.name)[0] or "application/octet-stream",
    )
    current_session().add(output)
    return output


class _Formatter(logging.Formatter):
    """Tells what was raised in the words of `failures`, since a traceback shows statements and their values."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record of which nobody else has a use."""
        record.exc_text = None
        if isinstance(record.args, tuple):
            record.args = tuple(summary_of(arg) if _shows_sql(arg) else arg for arg in record.args)
        message: object = record.msg
        if _shows_sql(message):
            record.msg = summary_of(message)
        return super().format(record)

    def formatException(self, ei: Any) -> str:
        """Return the traceback, without those of database errors and of what they were raised from."""
        raised = ei[1]
        if raised is None or not any(map(_shows_sql, _chain(raised))):
            return super().formatException(ei)
        return summary_of(raised)


def _shows_sql(value: object) -> TypeGuard[BaseException]:
    return isinstance(value, BaseException) and is_of_database(value)


def _chain(exception: BaseException) -> Iterator[BaseException]:
    waiting, seen = [exception], set()
    while waiting:
        raised = waiting.pop()
        seen.add(id(raised))
        yield raised
        members = raised.exceptions if isinstance(raised, BaseExceptionGroup) else ()
        linked = [raised.__cause__, raised.__context__, *members]
        waiting += [found for found in linked if found is not None and id(found) not in seen]


#: Packages whose records say nothing that a task's reader would want.
_NOT_CAPTURED = frozenset({"qhana_taskstate", "celery", "kombu", "amqp", "sqlalchemy"})


class TaskLogHandler(logging.Handler):
    """Copies log records that are emitted inside an execution into the log of its task.

    Args:
        level: Records from this level on.
    """

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.setFormatter(_Formatter("%(levelname)s %(name)s: %(message)s"))

    def takes(self, record: logging.LogRecord) -> bool:
        """Tell whether a record is for the log of a task; our own and Celery's records about tasks are left out."""
        return current_execution() is not None and record.name.partition(".")[0] not in _NOT_CAPTURED

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one record in memory."""
        execution = current_execution()
        if execution is None or not self.takes(record):
            return
        try:
            # A copy, since a formatter keeps the text of the traceback in the record, for all others too.
            execution.lines.append(self.format(copy(record)))
        except Exception:
            self.handleError(record)
