"""Which execution a report belongs to, also where the plugin reports from a thread or a process of its own."""

from __future__ import annotations

import logging
import multiprocessing
import threading
from typing import Final

from celery import _state

from .current import current_execution, forked_inside_execution, running_executions
from .execution import Execution

logger = logging.getLogger(__name__)

_SEVERAL: Final = (
    "a report from the thread %s belongs to nobody, since %d executions run in this process; run what reports through "
    "taskstate.bound(function). Further ones are dropped without a word"
)
_OTHER_PROCESS: Final = (
    "the process %d was started by another one; what it reports is refused, since it must not use its parent's "
    "connections. Report from the plugin task, for example as results come back. Further ones are refused without a "
    "word"
)

#: Of what this process has warned already.
_told: set[str] = set()


def reporting_execution() -> Execution | None:
    """Return the execution that a report of the calling code belongs to; None where there is none.

    That is the one in which the code runs. In a thread that runs none, it is the one execution of this process; where
    several run, nobody knows which, and the first such report warns. A process that a plugin has started reports for
    nobody, and warns once.
    """
    execution = current_execution()
    if execution is not None:
        return execution
    if forked_inside_execution() or multiprocessing.current_process().name != "MainProcess":
        _warn(_OTHER_PROCESS, multiprocessing.current_process().pid)
        return None
    if _has_own_work():
        return None
    running = _innermost(running_executions())
    if len(running) == 1:
        return running[0]
    if running:
        _warn(_SEVERAL, threading.current_thread().name, len(running))
    return None


def _has_own_work() -> bool:
    """Tell whether this thread cannot have been started by a plugin for its work.

    The main thread starts the others; one with a current Celery task runs an execution that is not tracked.
    """
    return threading.current_thread() is threading.main_thread() or _state.get_current_task() is not None


def _innermost(running: list[Execution]) -> list[Execution]:
    """Leave out those inside which another one runs eagerly."""
    outer = {id(execution.outer) for execution in running if execution.outer is not None}
    return [execution for execution in running if id(execution) not in outer]


def _warn(message: str, *values: object) -> None:
    if message not in _told:
        _told.add(message)
        logger.warning(message, *values)
