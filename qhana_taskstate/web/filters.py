"""What a list shows: its filter, and cursors, texts that name a page of one list and of no other."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

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


def filter_of(query: dict[str, Any]) -> TaskFilter:
    """Return the filter that a query asks for; what is empty filters nothing."""
    status = (query.get("status") or "").strip().upper()
    return TaskFilter(
        status=status or None,
        waiting=bool(query.get("waiting")),
        name=storable(query.get("name")),
        search=storable(query.get("search")),
    )


def storable(text: str | None) -> str | None:
    """Return a text to look for, without what no database holds; None for one that says nothing."""
    cleaned = (text or "").replace("\0", "").encode(errors="ignore").decode().strip()
    return cleaned[:200] or None
