"""Which `TaskState` is it: a plain registry of the process, which all parts may ask and which knows none of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .errors import NotConfiguredError


@dataclass(frozen=True, slots=True, eq=False)
class _Entry:
    app: object
    state: Any
    is_current: Callable[[], bool]


#: Newest last.
_entries: list[_Entry] = []


def register(app: object, state: Any, is_current: Callable[[], bool]) -> None:
    """Make a `TaskState` the one of an app from now on.

    Args:
        app: The Celery app.
        state: The `TaskState`.
        is_current: Tells whether the app is Celery's current one in the calling thread.
    """
    _entries.append(_Entry(app, state, is_current))


def of_app(app: object) -> Any | None:
    """Return the `TaskState` of an app, None if it has none."""
    return next((entry.state for entry in reversed(_entries) if entry.app is app), None)


def find() -> Any | None:
    """Return the `TaskState` of the process: of the current app, where there are several; None if none was made."""
    if not _entries:
        return None
    if len(_entries) > 1:
        # A thread other than the one that made the app has no current app of its own (celery 5.7, `_tls`).
        for entry in reversed(_entries):
            if entry.is_current():
                return entry.state
    return _entries[-1].state


def get() -> Any:
    """Return what `find` finds.

    Raises:
        NotConfiguredError: If no `TaskState` was made.
    """
    found = find()
    if found is None:
        raise NotConfiguredError(
            "no TaskState was made in this process; make one where the Celery app is: TaskState(app)"
        )
    return found
