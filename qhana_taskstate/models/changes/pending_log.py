"""Log entries of one task that its session has not flushed yet."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import inspect

from ...store.log.text import Entry, clean, join

_INFO: Final = "qhana_taskstate_log"


@dataclass
class PendingLog:
    """What was written to the log of one `ProcessingTask` object since its last flush.

    Attributes:
        entries: Entries not written yet.
        replaces: They take the place of the whole log.
        seen: The whole log as this object last showed it, with what was added through it since; None if it never did,
            or if some of that was rolled back.
        inserted: What was written since the row was inserted in the open transaction, None if it was not.
    """

    entries: list[Entry] = field(default_factory=list)
    replaces: bool = False
    seen: str | None = None
    inserted: list[Entry] | None = None

    @classmethod
    def of(cls, target: Any) -> PendingLog:
        """Return that of a mapped object, made at first use and kept for as long as the object."""
        info = inspect(target).info
        pending: PendingLog | None = info.get(_INFO)
        if pending is None:
            pending = info[_INFO] = cls()
        return pending

    @property
    def dirty(self) -> bool:
        """Whether something waits to be written."""
        return self.replaces or bool(self.entries)

    def add(self, text: str) -> None:
        """Add an entry on a new line."""
        entry = Entry(clean(text))
        self.entries.append(entry)
        if self.seen is not None:
            self.seen = join([entry], self.seen)

    def assign(self, text: str) -> None:
        """Take a new value of the whole log; one that begins with what was seen only adds the rest.

        So two writers who both use `+=` lose nothing.
        """
        text = clean(text)
        if self.seen is None or not text.startswith(self.seen):
            self.entries = [Entry(text)] if text else []
            self.replaces = True
        elif text != self.seen:
            rest = text.removeprefix(self.seen)
            if self.seen and rest.startswith("\n"):
                self.entries.append(Entry(rest[1:]))
            else:
                self.entries.append(Entry(rest, glued=bool(self.seen)))
        self.seen = text

    def show(self, stored: str) -> str:
        """Return the whole log, given the stored one, and remember it."""
        self.seen = join(self.entries, "" if self.replaces else stored)
        return self.seen

    def give_up(self) -> None:
        """Forget what waited to be written."""
        if self.dirty:
            self.seen = None
        self._empty()

    def written(self) -> None:
        """Note that what waited is written now."""
        if self.inserted is not None:
            self.inserted = [*([] if self.replaces else self.inserted), *self.entries]
        self._empty()

    def rolled_back(self) -> None:
        """Note that what was written in the open transaction may be gone, while the row itself is there."""
        self.seen = None

    def taken_back(self) -> None:
        """Let what was written wait again, since the row itself was rolled back."""
        self.entries = [*(self.inserted or ()), *self.entries]
        self.inserted = None

    def _empty(self) -> None:
        self.entries = []
        self.replaces = False
