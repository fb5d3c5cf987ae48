"""Finds our settings in Celery's configuration, with and without a namespace."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .sources import configured_name
from .values import PREFIX


def configured(mappings: Iterable[Mapping[str, Any]], namespace: str | None) -> dict[str, object]:
    """Gather what is set under our prefix.

    Args:
        mappings: The parts of `app.conf`; the first wins.
        namespace: `app.namespace`.

    Returns:
        Values by the names under which they were found; of two names of one setting the later wins. Within a part
        that is the one with the name space.
    """
    found: dict[str, object] = {}
    for mapping in reversed(list(mappings)):
        names = [key for key in mapping if isinstance(key, str) and configured_name(key, namespace) is not None]
        for key in sorted(names, key=lambda key: not key.lower().startswith(PREFIX)):
            found.pop(key, None)
            found[key] = mapping[key]
    return found
