"""Who may do what: the host's checks, and proof that a change was not made by another site's page."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from flask import request
from webargs.flaskparser import abort
from werkzeug.exceptions import HTTPException

#: Returns True for yes; something falsy for no; anything else, such as a redirect to a login, is the response. It may
#: also end the request itself, by `abort(401)`.
Check = Callable[[], Any]

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

#: What anybody may ask for: whether the server is ready, the looks of its pages, and the form for a token.
_PUBLIC: Final = frozenset({"health", "static", "login"})

#: What a form of another site can send without asking (Fetch standard, CORS-safelisted request headers).
_FORM_TYPES: Final = frozenset({"application/x-www-form-urlencoded", "multipart/form-data", "text/plain"})


def nobody() -> bool:
    """Let nobody in: what holds where the host says nothing."""
    return False


@dataclass(frozen=True, slots=True)
class Access:
    """The checks of one mounted blueprint.

    Attributes:
        may_read: Is asked before anything is shown.
        may_change: Is asked before anything is changed, after `may_read`.
        own_origins: Origins beside the one of the request whose pages may make changes; for servers behind a proxy
            that changes the name of the host.
    """

    may_read: Check = nobody
    may_change: Check = nobody
    own_origins: frozenset[str] = frozenset()

    def check(self) -> Any:
        """Decide about the current request; for `before_request`.

        Returns:
            None if it may go on, else the response. Refusals end the request with 403.
        """
        if request.endpoint is not None and request.endpoint.rpartition(".")[2] in _PUBLIC:
            return None
        refused = _ask(self.may_read, "read")
        if refused is not None or request.method in SAFE_METHODS:
            return refused
        if not self.is_from_here():
            abort(403, message="This change came from a page of another site.")
        return _ask(self.may_change, "change")

    def may_change_now(self) -> bool:
        """Tell whether the current request could make changes, so that a page knows whether to offer them."""
        try:
            return self.may_change() is True
        except HTTPException:
            return False

    def is_from_here(self) -> bool:
        """Tell whether a page of another site cannot have made the current request.

        Browsers say from where a request comes, in `Sec-Fetch-Site` and `Origin`; programs say nothing. What a
        browser's form can send must come with one of the two.
        """
        site = request.headers.get("Sec-Fetch-Site")
        origin = request.headers.get("Origin")
        if site in {"same-origin", "none"}:
            return True
        if origin is not None:
            return urlsplit(origin).netloc == request.host or origin in self.own_origins
        return site is None and request.mimetype not in _FORM_TYPES


def _ask(check: Check, what: str) -> Any:
    answer = check()
    if answer is True:
        return None
    if not answer:
        abort(403, message=f"You may not {what} here.")
    return answer


def same_secret(given: str, wanted: str) -> bool:
    """Compare a secret in a time that does not tell how much of it is right."""
    return hmac.compare_digest(given.encode(errors="replace"), wanted.encode())
