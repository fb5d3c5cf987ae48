"""Cursors: texts that name a page of one list, and of no other."""

from __future__ import annotations

from hashlib import blake2b

from ..reading.listing import TaskFilter


def cursor_of(wanted: TaskFilter, before: int) -> str:
    """Return the cursor of the page of tasks with ids below `before`."""
    return f"{before}-{_digest(wanted)}"


def before_of(wanted: TaskFilter, cursor: str) -> int | None:
    """Return the id that a cursor names; None if it is no cursor of this list."""
    number, _, digest = cursor.partition("-")
    if digest != _digest(wanted) or not (number.isascii() and number.isdigit()) or len(number) > 18:
        return None
    return int(number)


def _digest(wanted: TaskFilter) -> str:
    told = repr((wanted.status, wanted.waiting, wanted.name, wanted.search))
    return blake2b(told.encode(errors="replace"), digest_size=6).hexdigest()
