"""Starts work once a host's open transaction is committed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from sqlalchemy import inspect
from sqlalchemy.orm import Session

from ...database.sessions import django_host
from ...database.sessions.after_commit import after_commit
from ...database.sessions.open_writes import has_open_write
from ...database.sessions.scopes import Sessions
from ...models.task import ProcessingTask

#: Starts the work; takes `task=`.
Start = Callable[..., ProcessingTask]


def start_on_commit(
    start: Start, sessions: Sessions, *, task: ProcessingTask | int | str | None, session: Any, using: str | None
) -> ProcessingTask | None:
    """Call `start` after the commit of the host's open transaction, at once where there is none.

    Args:
        start: Starts the work.
        sessions: The sessions of the `TaskState`.
        task: The task to go on with, if any.
        session: The host's SQLAlchemy session, if it named one.
        using: Django's alias of a database, if it named one.

    Returns:
        The task if it was started at once.
    """
    django = django_host.open_transaction(using) if session is None else None
    if django is not None:
        django.on_commit(functools.partial(start, task=task))
        return None
    awaited = _awaited(sessions, session) if using is None else None
    if awaited is None:
        return start(task=task)
    after_commit(awaited, functools.partial(_start_aside, sessions, start, task))
    return None


def _awaited(sessions: Sessions, given: Any) -> Session | None:
    """Return the session whose commit is waited for, None if none is in a transaction."""
    session: Session | None = getattr(given, "sync_session", given)
    if session is None:
        session = sessions.opened()
        if session is not None and not sessions.hosted and not has_open_write(session):
            # Of ours; what was only read is no transaction of the host.
            return None
    return session if session is not None and session.in_transaction() else None


def _start_aside(sessions: Sessions, start: Start, task: ProcessingTask | int | str | None) -> None:
    """Start something while the current session ends its transaction, so that it cannot be used."""
    if isinstance(task, ProcessingTask):
        # Its attributes may have expired, and would be read by that session.
        identity = inspect(task).identity
        task = identity[0] if identity else task
    with sessions.aside():
        start(task=task)
