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
    real = _real(app)
    _entries[:] = [entry for entry in _entries if entry.app is not real or entry.state is not state]
    _entries.append(_Entry(real, state, is_current))


def find(app: object = None) -> Any | None:
    """Return the `TaskState` of an app, else that of the process; None if there is none.

    Args:
        app: The Celery app, or a stand-in for it; None for that of the process: of the current app, where there are
            several.
    """
    if app is not None:
        real = _real(app)
        return next((entry.state for entry in reversed(_entries) if entry.app is real), None)
    if not _entries:
        return None
    if len(_entries) > 1:
        # A thread other than the one that made the app has no current app of its own (celery 5.7, `_tls`).
        for entry in reversed(_entries):
            if entry.is_current():
                return entry.state
    return _entries[-1].state


def _real(app: Any) -> object:
    # Celery's `Proxy` stands for apps here and there (celery 5.5 to 5.7).
    unwrap = getattr(app, "_get_current_object", None)
    return app if unwrap is None else unwrap()


def get() -> Any:
    """Return the `TaskState` of the process.

    Raises:
        NotConfiguredError: If no `TaskState` was made.
    """
    found = find()
    if found is None:
        raise NotConfiguredError(
            "no TaskState was made in this process; make one where the Celery app is: TaskState(app)"
        )
    return found
