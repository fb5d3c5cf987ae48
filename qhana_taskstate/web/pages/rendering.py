"""How a page is rendered, and what a browser may do with it."""

from __future__ import annotations

from typing import Any, Final

from flask import Response, render_template, url_for

from ...clock import now
from ..files import is_followable
from ..marks.mark import EVENTS
from ..site import Site
from . import words

#: Scripts, styles and pictures of this server alone; nobody may frame the pages.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)


def rendered(template: str, *, site: Site, status: int = 200, **values: Any) -> Response:
    """Return a page."""
    text = render_template(
        template,
        words=words,
        now=now(),
        may_change=site.access.may_change_now(),
        is_followable=is_followable,
        home=url_for(".page"),
        events=" ".join(EVENTS),
        **values,
    )
    answer = Response(text, status, mimetype="text/html")
    answer.headers["Content-Security-Policy"] = POLICY
    answer.headers["X-Content-Type-Options"] = "nosniff"
    answer.headers["Referrer-Policy"] = "same-origin"
    answer.headers["Cache-Control"] = "private, no-store"
    return answer
