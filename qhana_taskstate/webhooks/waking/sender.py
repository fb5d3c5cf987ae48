"""Sends messages of our own from a thread, so that nobody waits for the broker."""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)


class Sender:
    """Sends in the order in which it was asked to. Makes its thread at first use, and another one after a fork.

    What cannot be sent is dropped: a message of ours is a hint, the row that it speaks of is the truth.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        #: None ends the thread.
        self._waiting: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._unsent = 0
        self._sent = threading.Condition()
        self._thread: threading.Thread | None = None

    def send(self, message: Callable[[], None]) -> None:
        """Send soon.

        Args:
            message: Sends it; may take long and may raise.
        """
        self.begin()
        with self._sent:
            self._unsent += 1
        self._waiting.put(message)

    def begin(self) -> None:
        """Make the thread if there is none; once Python exits, none can be made any more (3.12)."""
        if self._pid != os.getpid():
            # The parent's lock may be held by a thread that does not exist here.
            self._guard = threading.Lock()
            self._begin()
        with self._guard:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="qhana_taskstate-sender", daemon=True)
                self._thread.start()

    def drain(self, seconds: float) -> bool:
        """Wait until all is sent that this process was asked to send.

        Args:
            seconds: For how long at most.

        Returns:
            Whether it was.
        """
        if self._pid != os.getpid():
            return True
        with self._sent:
            return self._sent.wait_for(lambda: not self._unsent, timeout=seconds)

    def close(self) -> None:
        """End the thread after what it was asked to send; the next `send` makes another one."""
        if self._pid != os.getpid():
            return
        with self._guard:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._waiting.put(None)

    def _run(self) -> None:
        while (message := self._waiting.get()) is not None:
            send(message)
            with self._sent:
                self._unsent -= 1
                self._sent.notify_all()


def send(message: Callable[[], None]) -> None:
    """Send now; a fault is logged."""
    try:
        message()
    except Exception as exc:
        # Whatever a broker's library raises: the message is sent again by upkeep.
        logger.info("a message of our own could not be sent: %s", type(exc).__name__)
