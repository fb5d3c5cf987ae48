"""Takes records of the `logging` module into the logs of tasks, and leaves logging itself as the application has it.

No handler is added: whether the root logger has one decides what `logging.basicConfig`, `logging.lastResort` and Celery
do (celery 5.5 to 5.7, with `worker_hijack_root_logger=False`). What every logger calls with a record is wrapped
instead, so that the order of the set-up plays no part either, nor a handler that somebody removes.
"""

from __future__ import annotations

import functools
import logging
from typing import Final

from .progress import TaskLogHandler
from .sessions import current_settings

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
