"""Finds a limit or a cancellation that an error of the database hides."""

from __future__ import annotations

from celery.exceptions import SoftTimeLimitExceeded

from .contexts import contexts


def interruption_behind(exception: BaseException, before: BaseException | None = None) -> BaseException | None:
    """Return the limit or the cancellation that struck while the database worked; None if that was not the cause.

    What strikes in the middle of a statement leaves the driver in the middle of it too, so that the rollback fails,
    and only that error goes on (psycopg: "another command is already in progress"). A limit strikes once: who tries
    the statement again would drop it.

    Args:
        exception: What was raised.
        before: What was in flight before the database was asked; it and what led to it do not count.
    """
    for found in contexts(exception):
        if found is before:
            return None
        if isinstance(found, SoftTimeLimitExceeded) or not isinstance(found, Exception):
            return found
    return None
