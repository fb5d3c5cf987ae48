"""Leases that one observer has not seen change for long enough."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class _Note:
    """A lease as it was seen, and since when it has not changed."""

    lease: datetime
    since: datetime


class Silence(Generic[K]):
    """What one observer remembers of leases of one kind.

    Args:
        limit: For how long a lease has to be unchanged.
        longest_pause: After a longer pause between two looks it begins anew: while the database was away, nobody could
            renew a lease.
    """

    def __init__(self, limit: timedelta, longest_pause: timedelta) -> None:
        self._limit = limit
        self._longest_pause = longest_pause
        self._notes: dict[K, _Note] = {}
        self._last: datetime | None = None

    def look(self, leases: Mapping[K, datetime], moment: datetime) -> set[K]:
        """Return those whose lease has not changed for `limit`, and remember the others.

        Args:
            leases: When each lease was renewed last.
            moment: Now, by the database's clock.
        """
        if self._last is not None and moment - self._last > self._longest_pause:
            self._notes.clear()
        self._last = moment
        silent: set[K] = set()
        for key, lease in leases.items():
            note = self._notes.get(key)
            if note is None or note.lease != lease:
                self._notes[key] = _Note(lease, moment)
            elif moment - note.since >= self._limit:
                silent.add(key)
        for gone in self._notes.keys() - leases.keys():
            del self._notes[gone]
        return silent

    def forget(self) -> None:
        """Begin anew, since another process observes now."""
        self._notes.clear()
        self._last = None
