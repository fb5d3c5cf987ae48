"""The message that wakes the deliveries: who sends it and when, and the Celery task that it calls."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from typing import Final, Protocol

from celery import Celery

from ... import registry
from ...broker.connection import brief_connection
from ...context.current import detached
from ...context.header import OWN_TASK_PREFIX
from ...settings.values import Settings
from .sender import Sender, send

logger = logging.getLogger(__name__)

#: Name of the Celery task that makes the calls that are due.
TASK_NAME: Final = f"{OWN_TASK_PREFIX}deliver"

#: Such a message is worth nothing after so many seconds: others were sent meanwhile.
_EXPIRES_SECONDS: Final = 60.0

#: How long to wait for a broker that does not answer when it is sent.
_SEND_SECONDS: Final = 1

#: Longest time of a run of the deliveries, beyond all that its own limits allow.
_LIMIT_SECONDS: Final = 600

#: How long the end of a process is held up at most by such a message.
_EXIT_SECONDS: Final = 3.0


class Recording(Protocol):
    """What the wake messages need of what records facts in this process."""

    @property
    def makes_no_threads(self) -> bool:
        """Whether this process must not make a thread."""

    def owe(self) -> None:
        """Note soon, and from a thread if there may be one, that a message is to be sent."""

    def tell_at_exit(self, seconds: float) -> None:
        """Wait for so long at most until that is done."""


class Waker:
    """Sends the messages that wake the deliveries of one `TaskState`.

    Args:
        app: The Celery app.
        settings: The settings.
        sender: The thread that sends.
        recording: What records facts.

    Attributes:
        run: Makes the calls that are due, here and now; set by `wiring`.
    """

    def __init__(self, app: Celery, settings: Settings, sender: Sender, recording: Recording) -> None:
        self._app = app
        self._settings = settings
        self._sender = sender
        self._recording = recording
        self.run: Callable[[], object] = lambda: None

    def after_commit(self) -> None:
        """See that the deliveries are woken, after a commit that owes something to somebody; raises nothing."""
        try:
            if self._app.conf.task_always_eager:
                # Nobody else would: without a broker there are no workers.
                self.run()
            else:
                if not self._recording.makes_no_threads:
                    self._sender.begin()
                self._recording.owe()
        except Exception:
            # Upkeep wakes the deliveries again; the caller who committed must not suffer.
            logger.exception("the deliveries could not be woken")

    def at_exit(self) -> None:
        """Send what wakes the deliveries before the daemon threads that do so are gone: a script may end at once."""
        deadline = time.monotonic() + _EXIT_SECONDS
        self._recording.tell_at_exit(_EXIT_SECONDS)
        self._sender.drain(max(0.0, deadline - time.monotonic()))

    def send(self, seconds: float) -> None:
        """Send the message soon, from a thread if there may be one.

        Args:
            seconds: After how many a worker is to get it.
        """
        message = functools.partial(self._publish, seconds)
        if self._recording.makes_no_threads:
            send(message)
        else:
            self._sender.send(message)

    def _publish(self, seconds: float) -> None:
        with detached(), brief_connection(self._app, _SEND_SECONDS) as connection:
            self._app.send_task(
                TASK_NAME,
                connection=connection,
                countdown=seconds or None,
                queue=self._settings.webhook_queue,
                expires=seconds + _EXPIRES_SECONDS,
                ignore_result=True,
                retry=False,
            )


def register(app: Celery) -> None:
    """Make the task that the message calls one of an app's."""

    @app.task(
        name=TASK_NAME,
        shared=False,
        ignore_result=True,
        acks_late=False,
        # A host's limits for its own tasks may be shorter than a call may take.
        time_limit=_LIMIT_SECONDS,
        soft_time_limit=_LIMIT_SECONDS,
        max_retries=0,
    )
    def deliver() -> int | None:
        """Tell subscribers what they are owed."""
        parts = registry.parts(app)
        return None if parts is None else parts.deliverer.run()
