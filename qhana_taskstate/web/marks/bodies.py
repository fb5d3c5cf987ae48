"""Task resources as they were last sent, kept while their marks stay the same."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from .mark import Mark

#: Bytes of all bodies together.
_MOST_BYTES: Final = 16 * 1024 * 1024

#: So long the body of a task that has not ended is sent again: what it says of the activity changes with time alone.
_OPEN_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Body:
    """A response's body.

    Attributes:
        mark: What the task looked like when it was made; a body may be newer than its mark, never older.
        content: JSON.
        etag: Stands for the content, without quotes.
        made_at: When, by the monotonic clock.
    """

    mark: Mark
    content: bytes
    etag: str
    made_at: float

    @classmethod
    def of(cls, mark: Mark, content: bytes) -> Body:
        """Make one."""
        return cls(mark, content, blake2b(content, digest_size=12).hexdigest(), time.monotonic())


class Bodies:
    """Keeps the bodies that were used last, up to 16 MiB. For all threads of a process."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._kept: OrderedDict[tuple[int, str], Body] = OrderedDict()
        self._bytes = 0

    def get(self, task_id: int, base: str, mark: Mark) -> Body | None:
        """Return the body of a task with this mark; None if there is none.

        Args:
            task_id: Id of the task.
            base: Base of the addresses in it.
            mark: What the task looks like now.
        """
        kept = self._kept.get((task_id, base))
        if kept is None or kept.mark != mark:
            return None
        return kept if mark.finished or time.monotonic() - kept.made_at < _OPEN_SECONDS else None

    def keep(self, task_id: int, base: str, body: Body) -> None:
        """Keep a body, and forget those that were kept longest where there are too many."""
        with self._guard:
            replaced = self._kept.pop((task_id, base), None)
            self._bytes += len(body.content) - (len(replaced.content) if replaced is not None else 0)
            self._kept[task_id, base] = body
            while self._bytes > _MOST_BYTES and self._kept:
                _, oldest = self._kept.popitem(last=False)
                self._bytes -= len(oldest.content)
