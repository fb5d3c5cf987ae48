"""Keeps passwords out of what the command line prints."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import click
from celery import Celery

from .. import registry
from ..errors import TaskStateError
from .context import app_of

#: Names under which drivers take a password in the query of a URL.
_PASSWORD_KEYS: Final = frozenset({"password", "passwd", "sslpassword", "ssl_keyfile_password"})


def without_passwords(ctx: click.Context, message: str) -> str:
    """Replace the passwords of database, broker and result backend; drivers may put any of them into a message."""
    for password in sorted(_passwords(app_of(ctx)), key=len, reverse=True):
        message = message.replace(password, "***")
    return message


def _passwords(app: Celery) -> set[str]:
    urls: list[object] = [app.conf.result_backend]
    configured: Any
    for configured in (app.conf.broker_url, app.conf.broker_read_url, app.conf.broker_write_url):
        urls += configured if isinstance(configured, (list, tuple)) else str(configured or "").split(";")
    # Settings that cannot be read are in no message.
    with suppress(TaskStateError):
        urls.append(registry.get().settings.database_url)
    found: set[str] = set()
    for url in urls:
        try:
            parts = urlsplit(str(url or ""))
            passwords = [parts.password, *_values_of(parts.query, _PASSWORD_KEYS)]
        except ValueError:
            continue
        for password in filter(None, passwords):
            found |= {password, unquote(password)}
    return found


def _values_of(query: str, keys: frozenset[str]) -> list[str]:
    return [value for key, value in parse_qsl(query) if key.lower() in keys]
