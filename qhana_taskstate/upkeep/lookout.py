"""Looks for messages that were sent and not begun, and tells which are nowhere."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from ..broker.lost_messages import Sought
from ..settings.values import Settings
from ..store.executions.waiting import Waiting

logger = logging.getLogger(__name__)

#: In how many looks in a row a message has to be missing.
LOOKS: Final = 3

#: Pause between two looks, as a share of the time after which a message is looked for; and as a multiple of the
#: processor time that the look before it took, so that a long queue is not read all the time.
_PAUSE, _REST = 1 / 5, 20

#: How many messages are looked for at once.
_MOST: Final = 5000


class Finder(Protocol):
    """Where messages can be looked for; see `broker.lost_messages.Broker`."""

    @property
    def tells(self) -> bool:
        """Whether they can be looked for at all."""

    def find_missing(self, sought: Collection[Sought], stop: threading.Event) -> set[str]:
        """Return the ids of those that are nowhere."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a look has shown.

    Attributes:
        missing: Those whose messages were missing in `LOOKS` looks in a row.
        not_missing: Those whose messages are somewhere, as far as the broker tells.
    """

    missing: Collection[Waiting] = ()
    not_missing: Collection[Waiting] = ()


class Lookout:
    """What one process that does the chores knows of messages that seem to be missing.

    A look at the broker is made in a thread of its own, without the database: it may take long, and the thread that
    does the chores also keeps the running executions alive.

    Args:
        finder: Where to look.
        settings: Settings of the same `TaskState`.
    """

    def __init__(self, finder: Finder, settings: Settings) -> None:
        self._finder = finder
        self._age = timedelta(seconds=settings.missing_after_seconds)
        self._pause = settings.missing_after_seconds * _PAUSE
        self._look: _Look | None = None
        self._not_before = 0.0
        #: From where on the rows are read at the next look, oldest publication first.
        self._after: datetime | None = None
        self._suspects: dict[Waiting, int] = {}

    @property
    def tells(self) -> bool:
        """Whether messages can be looked for at all."""
        return self._finder.tells

    def forget(self) -> None:
        """Begin anew: another process does the chores, or the broker could not be asked."""
        if self._look is not None:
            self._look.stop()
        self._look, self._after = None, None
        self._suspects.clear()

    def turn(
        self,
        moment: datetime,
        waiting: Callable[[datetime, datetime | None, int], list[Waiting]],
        besides: Collection[Waiting] = (),
    ) -> Found:
        """Take up what the last look found, and begin the next one when it is time; returns at once.

        Args:
            moment: Now, by the database's clock.
            waiting: Gives executions that nobody has begun, published before a moment and not before another one,
                oldest first, at most so many.
            besides: Those that are to be looked for whatever their age.

        Returns:
            What the last look has shown; nothing while it goes on, and if it failed.
        """
        if self._look is not None:
            if not self._look.ended:
                return Found()
            look, self._look = self._look, None
            self._not_before = time.monotonic() + max(self._pause, _REST * look.seconds)
            return self._judge(look)
        if time.monotonic() < self._not_before or not self.tells:
            return Found()
        self._not_before = time.monotonic() + self._pause
        page = waiting(moment - self._age, self._after, _MOST)
        if not page and self._after is not None:
            # The end was reached: from the beginning again.
            self._after = None
            page = waiting(moment - self._age, None, _MOST)
        if page:
            last = page[-1].published_at
            # A page of one moment only would be read for ever.
            self._after = last if last != self._after else last + timedelta(microseconds=1)
            if len(page) < _MOST:
                self._after = None
        candidates = list(dict.fromkeys([*self._suspects, *besides, *page]))
        if candidates:
            self._look = _Look(self._finder, candidates, moment - self._age)
        return Found()

    def _judge(self, look: _Look) -> Found:
        if look.missing is None:
            self.forget()
            return Found()
        counts = {one: self._suspects.get(one, 0) + 1 for one in look.candidates if one.key.celery_id in look.missing}
        self._suspects = {one: count for one, count in counts.items() if count < LOOKS}
        return Found(
            missing=[one for one, count in counts.items() if count >= LOOKS],
            not_missing=[one for one in look.candidates if one not in counts],
        )


class _Look:
    """One look at the broker, in a thread of its own.

    Attributes:
        missing: Ids that were nowhere; None until it has ended, and if it failed.
        seconds: How much processor time it took.
    """

    def __init__(self, finder: Finder, candidates: list[Waiting], due_before: datetime) -> None:
        self.candidates = candidates
        self.missing: set[str] | None = None
        self.seconds = 0.0
        self._finder = finder
        self._sought = [
            Sought(
                celery_id=one.key.celery_id,
                queue=one.queue,
                due=one.eta is None or one.eta < due_before,
            )
            for one in candidates
        ]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="qhana_taskstate-lookout", daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return not self._thread.is_alive()

    def stop(self) -> None:
        """Let it end soon; nobody waits for it."""
        self._stop.set()

    def _run(self) -> None:
        began = time.thread_time()
        try:
            self.missing = self._finder.find_missing(self._sought, self._stop)
        except Exception as exc:
            # Whatever the drivers of brokers raise: there is always a next look.
            logger.info("the broker could not be asked for messages that wait long: %s", type(exc).__name__)
        self.seconds = time.thread_time() - began
