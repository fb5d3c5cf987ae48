"""Shows errors: as JSON to programs, as a page to people."""

from __future__ import annotations

from typing import Any, Final

from flask import request
from werkzeug.exceptions import HTTPException

from .pages.rendering import rendered
from .problems import as_json, of_error, problem_of
from .site import Site

#: What people look at; everything else is for programs.
_PAGES: Final = frozenset({"page", "cancel_some", "task_page", "task_action", "log_file", "openapi_page", "login"})


class Faults:
    """The error handlers of one mounted blueprint.

    Args:
        site: What they belong to.
    """

    def __init__(self, site: Site) -> None:
        self._site = site

    def show(self, error: HTTPException) -> Any:
        """Show an HTTP error."""
        endpoint = (request.endpoint or "").rpartition(".")[2]
        if endpoint not in _PAGES or error.response is not None:
            return as_json(error)
        page = rendered("taskstate/error.html", site=self._site, status=error.code or 500, problem=problem_of(error))
        page.headers.extend((getattr(error, "data", None) or {}).get("headers") or {})
        return page

    def explain(self, error: Exception) -> Any:
        """Show an error of ours; one that is a fault of the program is raised on."""
        told = of_error(error)
        if told is None:
            raise error
        return self.show(told)
