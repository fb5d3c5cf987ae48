"""The `TaskState` of each app of this process, with its parts, for all folders to find."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .errors import NotConfiguredError


@dataclass(slots=True, eq=False)
class _Entry:
    """One `TaskState`.

    Attributes:
        state: It.
        current_app: See `register`.
        parts: See `hand_down`.
    """

    state: Any
    current_app: Callable[[], object]
    parts: Any = None


#: Newest last.
_entries: list[_Entry] = []
_of_app: weakref.WeakKeyDictionary[Any, _Entry] = weakref.WeakKeyDictionary()


def register(app: Any, state: Any, current_app: Callable[[], object]) -> None:
    """Make a `TaskState` the one of an app from now on.

    Args:
        app: The Celery app.
        state: The `TaskState`.
        current_app: Returns the app that is Celery's current one in the calling thread.
    """
    unwrap = getattr(app, "_get_current_object", None)
    new = _of_app[app if unwrap is None else unwrap()] = _Entry(state, current_app)
    _entries[:] = [entry for entry in _entries if entry.state is not state]
    _entries.append(new)


def forget(state: Any) -> None:
    """Undo `register`: it is then nobody's `TaskState`, for tests that come after another."""
    _entries[:] = [entry for entry in _entries if entry.state is not state]
    for app in [app for app, entry in _of_app.items() if entry.state is state]:
        del _of_app[app]


def hand_down(state: Any, parts: Any) -> None:
    """Let everybody have the parts of a `TaskState` (settings, sessions and so on) without a way up to it.

    Args:
        state: The `TaskState`.
        parts: Its parts; None once they are closed.
    """
    for entry in [*_entries, *_of_app.values()]:
        if entry.state is state:
            entry.parts = parts


def find(app: Any = None) -> Any | None:
    """Return the `TaskState` of an app, else that of the process; None if there is none.

    Args:
        app: The Celery app, or a stand-in for it; None for that of the process: of the current app, where there are
            several.
    """
    entry = _entry(app)
    return None if entry is None else entry.state


def parts(app: Any = None) -> Any | None:
    """Return the parts of the `TaskState` that `find` returns, which are made at first use; None if there is none."""
    entry = _entry(app)
    return None if entry is None else entry.parts or entry.state.parts


def _entry(app: Any) -> _Entry | None:
    if app is not None:
        # Celery's `Proxy` stands for apps here and there (celery 5.5 to 5.7).
        unwrap = getattr(app, "_get_current_object", None)
        return _of_app.get(app if unwrap is None else unwrap())
    if not _entries:
        return None
    newest = _entries[-1]
    # A thread other than the one that made the app has no current app of its own (celery 5.7, `_tls`).
    return (_entry(newest.current_app()) or newest) if len(_entries) > 1 else newest


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
