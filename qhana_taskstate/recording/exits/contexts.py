"""The exceptions that led to an exception, by its causes and contexts. Pure."""

from __future__ import annotations

from collections.abc import Iterator


def contexts(exception: BaseException) -> Iterator[BaseException]:
    """Yield an exception, then the one that was dealt with as it was raised, and so on; each once."""
    seen: set[int] = set()
    found: BaseException | None = exception
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__context__
