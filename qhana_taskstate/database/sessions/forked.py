"""Sessions that a process has inherited from its parent, and must not use."""

from __future__ import annotations

import os
import weakref
from typing import Final

from sqlalchemy import event
from sqlalchemy.orm import Session

from ...errors import ForkedSessionError

#: Every session that was made here and is in use.
_ours: weakref.WeakSet[Session] = weakref.WeakSet()


#: In a session's `info`: it was made by the parent of this process.
_PARENT: Final = "qhana_taskstate_parent"


def note_own(session: Session) -> None:
    """Remember a session, so that a forked child refuses it."""
    _ours.add(session)


def disown_all() -> list[object]:
    """Mark all sessions as the parent's, in a forked child; returns what was open in them, to be kept for ever."""
    kept: list[object] = []
    for session in list(_ours):
        session.info[_PARENT] = True
        # It is the parent who goes on with what is open: neither a rollback nor a close may reach it from here.
        kept.append((session._transaction, session._nested_transaction))
        session._transaction = session._nested_transaction = None
    return kept


def _refuse_of_parent(session: Session, *_: object) -> None:
    if _PARENT in session.info:
        raise ForkedSessionError(os.getpid())


# Before the first statement of each transaction.
event.listen(Session, "after_begin", _refuse_of_parent)
