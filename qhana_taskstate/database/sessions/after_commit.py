"""Does something once the open transaction of an SQLAlchemy session is committed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction

#: Where a session keeps what waits for its commit.
_WAITING: Final = "qhana_taskstate_after_commit"


class _Waiting:
    """What waits for the commit of one session, with the (nested) transaction in which it was asked for."""

    def __init__(self, session: Session) -> None:
        self.actions: list[tuple[SessionTransaction | None, Callable[[], object]]] = []
        self.committed = False
        event.listen(session, "after_commit", self._note_commit)
        event.listen(session, "after_transaction_end", self._end)

    def _note_commit(self, session: Session) -> None:
        # Also sent for the release of a savepoint; the end of the same transaction follows (SQLAlchemy 2.0 and 2.1).
        self.committed = True

    def _end(self, session: Session, ended: SessionTransaction) -> None:
        if ended.parent is not None and not ended.nested:
            # A flush inside the transaction.
            return
        committed, self.committed = self.committed, False
        its_own = [action for asked_in, action in self.actions if asked_in is ended]
        self.actions = [(asked_in, action) for asked_in, action in self.actions if asked_in is not ended]
        if not committed:
            return
        if ended.parent is not None:
            self.actions += [(ended.parent, action) for action in its_own]
            return
        for action in its_own:
            action()


def after_commit(session: Session, action: Callable[[], object]) -> None:
    """Call an action after the commit of the session's open transaction; never, if that is rolled back.

    What it raises comes out of the `commit`. As with Django's `on_commit`, it is dropped with the savepoint in which
    it was asked for.

    Args:
        session: A session that is in a transaction. The action must not use it.
        action: Takes no arguments.
    """
    waiting = session.info.get(_WAITING)
    if waiting is None:
        waiting = session.info[_WAITING] = _Waiting(session)
    waiting.actions.append((session.get_nested_transaction() or session.get_transaction(), action))
