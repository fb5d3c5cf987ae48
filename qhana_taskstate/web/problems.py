"""What a request gets that cannot be answered: an HTTP error in the form that QHAna's readers know."""

from __future__ import annotations

from typing import Any, Final, NoReturn

from flask import Response, json
from webargs.flaskparser import abort
from werkzeug.exceptions import HTTPException

from ..errors import (
    BrokerUnavailableError,
    DatabaseUnavailableError,
    NotRestartableError,
    SchemaError,
    TaskNotFoundError,
)

#: After so many seconds a client may ask again for what the database could not answer.
RETRY_SECONDS: Final = 5


def not_found(what: str = "Task") -> NoReturn:
    """End the request with 404; the body is that of QHAna's task view."""
    abort(404, message=f"{what} not found.")
    raise AssertionError


def refuse(location: str, field: str, reason: str) -> NoReturn:
    """End the request with 422.

    Args:
        location: Where the value was: `json` or `query`.
        field: Its name there.
        reason: What is wrong with it, and what to do.
    """
    abort(422, errors={location: {field: [reason]}})
    raise AssertionError


def problem_of(error: HTTPException) -> dict[str, Any]:
    """Return the body that tells of an HTTP error.

    Shape: `code` and `status` always, `message` and `errors` where there is more to say, as flask-smorest has them.
    """
    told: dict[str, Any] = {"code": error.code, "status": error.name}
    data = getattr(error, "data", None) or {}
    if "message" in data:
        told["message"] = data["message"]
    elif error.description and error.description != type(error).description and not data:
        told["message"] = error.description
    if "errors" in data or "messages" in data:
        told["errors"] = data.get("errors", data.get("messages"))
    return told


def as_json(error: HTTPException) -> Response:
    """Return the response for an HTTP error, for programs."""
    if error.response is not None:
        return error.response  # type: ignore[return-value]  # what a view handed to abort()
    headers = {name: value for name, value in error.get_headers() if name.lower() not in _OURS}
    headers.update((getattr(error, "data", None) or {}).get("headers") or {})
    return Response(json.dumps(problem_of(error)), error.code, headers, mimetype="application/json")


_OURS: Final = frozenset({"content-type", "content-length"})


def of_error(error: Exception) -> HTTPException | None:
    """Return the HTTP error that tells of one of ours; None for one that is a fault of the program."""
    if isinstance(error, TaskNotFoundError):
        return _http(404, "Task not found.")
    if isinstance(error, NotRestartableError):
        return _http(409, str(error))
    if isinstance(error, BrokerUnavailableError):
        told = "The broker cannot be reached now; try again."
        return _http(503, told, {"Retry-After": str(RETRY_SECONDS)})
    if isinstance(error, DatabaseUnavailableError):
        # Not its own text, which names the database.
        return _http(503, "The database cannot be reached now; try again.", {"Retry-After": str(RETRY_SECONDS)})
    if isinstance(error, SchemaError):
        told = "The tables are missing or too old; run: celery -A worker taskstate upgrade"
        return _http(503, told, {"Retry-After": str(RETRY_SECONDS)})
    return None


def _http(code: int, message: str, headers: dict[str, str] | None = None) -> HTTPException:
    try:
        abort(code, message=message, headers=headers or {})
    except HTTPException as made:
        return made
    raise AssertionError
