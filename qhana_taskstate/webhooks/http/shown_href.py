"""A URL as it may be shown: without passwords and values."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

CONTROL: Final = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029\ud800-\udfff]")


_SHOWABLE: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/*([^/?#\\]*)([^?#]*)(?:\?([^#]*))?", re.DOTALL)


_HOST_AND_PORT: Final = re.compile(r"(?:\[[^\]]*\]|[^:\[]*)(?::[0-9]*)?")


def shown_href(href: object) -> str:
    """Return a URL as it may be shown: without credentials, fragment, and values of the query; at most 300 characters.

    What cannot be told apart from credentials is left out too.
    """
    parts = _SHOWABLE.fullmatch(href.partition("#")[0]) if isinstance(href, str) else None
    if parts is None:
        return "(not shown)"
    scheme, authority, path, query = parts.groups()
    _credentials, at, host = authority.rpartition("@")
    if not _HOST_AND_PORT.fullmatch(host):
        return f"{scheme}://…"  # the part of a password before a slash looks like a port
    names = "&".join(f"{name}=…" if equals else "…" for name, equals, _ in _pairs(query)) if query else ""
    shown = f"{scheme}://{'…@' if at else ''}{host}{path}{'?' if names else ''}{names}"
    return CONTROL.sub("�", shown if len(shown) <= 300 else f"{shown[:299]}…")


def _pairs(query: str) -> Iterable[tuple[str, str, str]]:
    return (pair.partition("=") for pair in query.split("&"))
