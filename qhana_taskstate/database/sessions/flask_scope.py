"""The end of a scope that belongs to a request of Flask."""

from __future__ import annotations

from typing import Any


def close_at_teardown(flask: Any, key: str) -> None:
    """Let the current Flask application close, after each request, the scope that lies under a key of `flask.g`."""
    functions = flask.current_app.teardown_appcontext_funcs
    if any(getattr(function, "taskstate_key", None) == key for function in functions):
        return

    def close_scope(exc: BaseException | None) -> None:
        scope = flask.g.pop(key, None)
        if scope is not None:
            scope.close()

    close_scope.taskstate_key = key  # type: ignore[attr-defined]
    # Appended by hand: Flask refuses its decorator once the first request was handled (flask 2.3).
    functions.append(close_scope)
