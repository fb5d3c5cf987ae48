"""Whether a write to SQLite would wait for the thread that makes it."""

from __future__ import annotations

import time
from os.path import realpath
from typing import Final

from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session

from ...errors import OwnTransactionError
from ..dialects import kind_of
from ..engine import Database
from .django_host import open_transaction, open_transaction_on_file
from .open_writes import has_written, sessions_writing_here

#: Seconds for which somebody else may hold the lock that a transaction of this thread may hold.
_PATIENCE_SECONDS: Final = 0.3
_PAUSE_SECONDS: Final = 0.05


def refuse_own_lock(database: Database, session: Session | None) -> None:
    """Raise instead of waiting ten seconds in vain for a transaction that this thread has open.

    Args:
        database: Where something is to be written.
        session: The session that writes it; None for a connection of our own.

    Raises:
        OwnTransactionError: If this thread holds the write lock of the file through another connection.
    """
    if not kind_of(database.dialect).one_writer or (session is not None and has_written(session)):
        return
    others = [other for other in sessions_writing_here() if other is not session]
    if not others and open_transaction() is None:
        return
    path = _file_of(database)
    if path is None:
        return
    if any(_writes_to(other, path) for other in others):
        raise OwnTransactionError(database.name)
    if open_transaction_on_file(path) is not None and not _can_write(database):
        raise OwnTransactionError(database.name)


def guard(session: Session, database: Database) -> None:
    """Let a session of ours raise `OwnTransactionError` before it flushes, rather than wait in vain."""
    if kind_of(database.dialect).one_writer:
        event.listen(session, "before_flush", lambda flushed, *_: refuse_own_lock(database, flushed))


def holds_own_lock(database: Database) -> bool:
    """Tell whether a write of ours would wait for this very thread."""
    try:
        refuse_own_lock(database, None)
    except OwnTransactionError:
        return True
    return False


def _file_of(database: Database) -> str | None:
    return realpath(database.file) if database.file else None


def _writes_to(session: Session, path: str) -> bool:
    try:
        url = session.get_bind().engine.url
    except (SQLAlchemyError, RuntimeError):
        # A session with several binds, or one whose application context is gone.
        return False
    return url.get_backend_name() == "sqlite" and bool(url.database) and realpath(str(url.database)) == path


def _can_write(database: Database) -> bool:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            with database.transaction(patience=0):
                return True
        except DBAPIError:
            if time.monotonic() > deadline:
                return False
        time.sleep(_PAUSE_SECONDS)
