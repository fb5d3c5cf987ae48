"""What `doctor` sends through the broker: a small canvas, and a question for the time."""

from __future__ import annotations

import time
from typing import Any, Final

from celery import Celery, Signature, chain
from celery.worker.control import inspect_command

from ..context.current import current_execution

#: Name of the Celery task. Tracked like a plugin's, so not one of `OWN_TASK_PREFIX`.
TASK_NAME: Final = "taskstate.probe"

#: Name of the remote control command that tells the time of a worker.
CLOCK_COMMAND: Final = "taskstate_clock"


@inspect_command(name=CLOCK_COMMAND)
def tell_time(state: Any) -> dict[str, float]:
    """Answer with the worker's clock, in seconds since the epoch."""
    return {"time": time.time()}


def register(app: Celery) -> None:
    """Make the probe one of an app's tasks."""

    @app.task(name=TASK_NAME, shared=False, ignore_result=True, time_limit=30, max_retries=0, acks_late=False)
    def probe() -> None:
        """Do nothing but make sure that this belongs to a task."""
        if current_execution() is None:
            raise RuntimeError("the header that says which task a message belongs to did not come through the broker")


def canvas(app: Celery) -> Signature[Any]:
    """Return what is started: the second message is published by a worker, so that it comes from there too."""
    once = app.signature(TASK_NAME, immutable=True)
    return chain(once, once.clone())
