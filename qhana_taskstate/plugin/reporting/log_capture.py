"""Records of the standard `logging` module, copied into the log of a task."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from copy import copy
from typing import Any, Final, TypeGuard

from ...context.current import current_execution
from ...database.sessions.current import current_settings
from ...failures import is_of_database, summary_of


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


_MARK: Final = "qhana_taskstate_captures"


#: Attached to no logger.
_handler: Final = TaskLogHandler(logging.NOTSET)


def install() -> None:
    """Let records that are emitted inside an execution go into its log, as its settings say; twice is once."""
    emit = logging.Logger.callHandlers
    if hasattr(emit, _MARK):
        return

    @functools.wraps(emit)
    def captured(self: logging.Logger, record: logging.LogRecord) -> None:
        if _handler.takes(record):
            level = current_settings().capture_log_level
            if level is not None and record.levelno >= level:
                _handler.handle(record)
        emit(self, record)

    setattr(captured, _MARK, True)
    logging.Logger.callHandlers = captured  # type: ignore[method-assign]
