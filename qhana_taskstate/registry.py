"""Which `TaskState` is it: a plain registry of the process, which all parts may ask and which knows none of them."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .errors import NotConfiguredError


@dataclass(frozen=True, slots=True, eq=False)
class _Entry:
    state: Any
    current_app: Callable[[], object]


#: Newest last.
_entries: list[_Entry] = []
_of_app: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


def register(app: Any, state: Any, current_app: Callable[[], object]) -> None:
    """Make a `TaskState` the one of an app from now on.

    Args:
        app: The Celery app.
        state: The `TaskState`.
        current_app: Returns the app that is Celery's current one in the calling thread.
    """
    unwrap = getattr(app, "_get_current_object", None)
    _of_app[app if unwrap is None else unwrap()] = state
    _entries[:] = [entry for entry in _entries if entry.state is not state]
    _entries.append(_Entry(state, current_app))


def forget(state: Any) -> None:
    """Undo `register`: it is then nobody's `TaskState`, for tests that come after another."""
    _entries[:] = [entry for entry in _entries if entry.state is not state]
    for app in [app for app, found in _of_app.items() if found is state]:
        del _of_app[app]


def find(app: Any = None) -> Any | None:
    """Return the `TaskState` of an app, else that of the process; None if there is none.

    Args:
        app: The Celery app, or a stand-in for it; None for that of the process: of the current app, where there are
            several.
    """
    if app is not None:
        # Celery's `Proxy` stands for apps here and there (celery 5.5 to 5.7).
        unwrap = getattr(app, "_get_current_object", None)
        return _of_app.get(app if unwrap is None else unwrap())
    if not _entries:
        return None
    newest = _entries[-1]
    # A thread other than the one that made the app has no current app of its own (celery 5.7, `_tls`).
    found = find(newest.current_app()) if len(_entries) > 1 else None
    return newest.state if found is None else found


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
