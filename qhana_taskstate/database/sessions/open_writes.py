"""Which sessions hold a write that is not committed yet."""

from __future__ import annotations

import threading
import weakref
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import ORMExecuteState, Session, SessionTransaction

_WRITES = "qhana_taskstate_open_write"


def has_open_write(session: Session) -> bool:
    """Tell whether a session holds, or is about to make, a write that was not committed."""
    return bool(session.new or session.dirty or session.deleted or session.info.get(_WRITES))


def has_written(session: Session) -> bool:
    """Tell whether a session has written something that was not committed, and so holds what locks it took."""
    return _WRITES in session.info


#: Every session of this process, ours or the host's, that holds a write which was not committed.
_writing: weakref.WeakSet[Session] = weakref.WeakSet()


def note_write(session: Session, *_: Any) -> None:
    """Note that a session holds a write. For Core statements on its connection, of which no event tells."""
    session.info[_WRITES] = threading.get_ident()
    _writing.add(session)


def sessions_writing_here() -> list[Session]:
    """Return the sessions, ours or the host's, that hold a write which this thread made and nobody committed."""
    here = threading.get_ident()
    return [session for session in list(_writing) if session.info.get(_WRITES) == here]


def _note_statement(state: ORMExecuteState) -> None:
    if not state.is_select:
        note_write(state.session)


def _forget_write(session: Session, *_: Any) -> None:
    if not session.in_nested_transaction():
        session.info.pop(_WRITES, None)
        _writing.discard(session)


def _forget_closed(session: Session, transaction: SessionTransaction) -> None:
    # `Session.close` rolls back without a word of it.
    if transaction.parent is None:
        _forget_write(session)


# On the class, so that a host's session is seen too; the handlers only set a mark.
event.listen(Session, "after_flush", note_write)


event.listen(Session, "do_orm_execute", _note_statement)


event.listen(Session, "after_commit", _forget_write)


event.listen(Session, "after_rollback", _forget_write)


event.listen(Session, "after_transaction_end", _forget_closed)
