"""One try of the background thread to write something; a fault is noted and tried again later."""

from __future__ import annotations

import logging
from collections.abc import Callable

from .backlog import Backlog

logger = logging.getLogger(__name__)


def attempt_write(backlog: Backlog, work: Callable[[], object]) -> None:
    if backlog.away:
        return
    try:
        work()
    except Exception as exc:
        if backlog.note(exc):
            return
        logger.warning("what this process reports could not be written, trying again: %s: %s", type(exc).__name__, exc)
