"""One token for all who may use a server of ours: as `Authorization: Bearer`, or typed once into a form."""

from __future__ import annotations

import hmac
from typing import Any, Final
from urllib.parse import urlsplit

from flask import Response, redirect, request, url_for
from flask_smorest import Blueprint
from webargs.flaskparser import abort

from ..access import same_secret
from ..site import Site
from .rendering import rendered

_COOKIE: Final = "taskstate"
_COOKIE_SECONDS: Final = 30 * 86400

#: What programs ask for and what they answer with; everybody else is sent to the form.
_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="taskstate"'}


class Login:
    """The check of the token, and the form for it.

    Args:
        token: What must be shown.
    """

    def __init__(self, token: str) -> None:
        self._token = token
        # Whoever finds the cookie has not found the token.
        self._cookie = hmac.new(token.encode(), b"taskstate page", "sha256").hexdigest()

    def check(self) -> Any:
        """Decide about the current request; a `Check` for reading and for changing."""
        scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
        if scheme:
            if scheme.lower() == "bearer" and same_secret(shown.strip(), self._token):
                return True
            abort(401, message="This token is wrong.", headers=_CHALLENGE)
        if same_secret(request.cookies.get(_COOKIE, ""), self._cookie):
            return True
        if (
            request.accept_mimetypes.accept_html
            and request.method == "GET"
            and "text/html" in str(request.accept_mimetypes)
        ):
            return redirect(url_for(".login", next=request.full_path.rstrip("?")), 303)
        abort(401, message="Show the token: Authorization: Bearer TOKEN.", headers=_CHALLENGE)
        raise AssertionError

    def register(self, blueprint: Blueprint, site: Site) -> None:
        """Add the form to a blueprint."""

        def login() -> Response:
            if request.method == "GET":
                return rendered("taskstate/login.html", site=site, wrong=False, next=request.args.get("next", ""))
            return self._take(site)

        blueprint.add_url_rule("/login", "login", login, methods=["GET", "POST"])

    def _take(self, site: Site) -> Response:
        wanted = request.form.get("next", "")
        if not same_secret(request.form.get("token", "").strip(), self._token):
            return rendered("taskstate/login.html", site=site, status=401, wrong=True, next=wanted)
        parts = urlsplit(wanted)
        local = (
            wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and not parts.netloc and not parts.scheme
        )
        answer: Any = redirect(wanted if local else url_for(".page"), 303)
        answer.set_cookie(
            _COOKIE, self._cookie, max_age=_COOKIE_SECONDS, httponly=True, samesite="Strict", secure=request.is_secure
        )
        found: Response = answer
        return found
