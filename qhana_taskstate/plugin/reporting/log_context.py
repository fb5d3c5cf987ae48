"""Names the task and the execution in each record of the standard `logging` module."""

from __future__ import annotations

import logging
from typing import Final

from ...context.current import current_execution

#: What stands for a task and an execution where none runs.
_NONE: Final = "-"

#: A format for records that went through `TaskLogFilter`.
LOG_FORMAT: Final = "%(asctime)s %(levelname)s task=%(task_id)s execution=%(execution)s %(name)s: %(message)s"


class TaskLogFilter(logging.Filter):
    """Adds `task_id` and `execution` to the records that pass a handler; keeps none back.

    `task_id` is the id of the `ProcessingTask`. `execution` is Celery's id of the message that runs, with the number of
    the attempt where it is tried again (`…/2`), and that of the replacement where it is one (`…+1`). Both are `-` for
    what is logged outside of an execution. It belongs on handlers: a filter of a logger sees no records of the loggers
    below it.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Name what runs here, in the thread that logs."""
        execution = current_execution()
        record.task_id = _NONE if execution is None else execution.ref.task_id
        record.execution = _NONE
        if execution is not None:
            key = execution.key
            attempt = f"/{key.retries + 1}" if key.retries else ""
            record.execution = f"{key.celery_id}{attempt}{f'+{key.nesting}' if key.nesting else ''}"
        return True
