"""What a transaction changes about tasks, as events that subscribers are owed.

They are written at its commit. A plugin may flush long before it commits. The rows that tell subscribers are therefore
inserted right before the commit, so that a subscription made in between is seen, and so that no lock is held for longer
than the commit takes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, event, inspect
from sqlalchemy.orm import Mapper, Session, SessionTransaction, object_session

from ...events import TaskEvent
from ...store.task import outbox as task_outbox
from .pending_log import PendingLog

logger = logging.getLogger(__name__)

#: Key in the info of a session: what its open transaction changed.
_NOTED: Final = "qhana_taskstate_events"


@dataclass
class _Noted:
    """What one transaction of a session changed.

    Attributes:
        changes: By the transaction or savepoint in which it happened: a task and what happened to it.
        subscriptions: By the same: tasks that were subscribed to.
        written: The changes are in the outbox; what handlers of others still change in the same commit is added at
            once.
        owed: Somebody is to be told.
    """

    changes: dict[SessionTransaction, set[tuple[int, TaskEvent]]] = field(default_factory=dict)
    subscriptions: dict[SessionTransaction, set[int]] = field(default_factory=dict)
    written: bool = False
    owed: bool = False


def note(session: Session, task_id: int | None, *events: TaskEvent) -> None:
    """Note what the open transaction of a session changed about a task; a savepoint that is rolled back takes it back.

    Args:
        session: The session.
        task_id: Id of the task; None is nobody's.
        events: What happened.
    """
    transaction = _transaction(session)
    if task_id is None or transaction is None:
        return
    noted = session.info.setdefault(_NOTED, _Noted())
    noted.changes.setdefault(transaction, set()).update((task_id, told) for told in events)
    if noted.written:
        _write(session, noted)


def note_subscription(session: Session, task_id: int | None) -> None:
    """Note that the open transaction of a session subscribed somebody to a task."""
    transaction = _transaction(session)
    if task_id is None or transaction is None:
        return
    noted = session.info.setdefault(_NOTED, _Noted())
    noted.subscriptions.setdefault(transaction, set()).add(task_id)
    if noted.written:
        _write(session, noted)


def _transaction(session: Session) -> SessionTransaction | None:
    return session.get_nested_transaction() or session.get_transaction()


def listen(
    step_class: type[Any],
    detail_classes: Iterable[type[Any]],
    subscription_class: type[Any],
    announce: Callable[[], None],
) -> None:
    """Write events of sessions from now on.

    Args:
        step_class: `Step`; its changes beyond an insert are noted where it is cleared.
        detail_classes: Classes whose rows are shown with a task.
        subscription_class: `TaskUpdateSubscription`.
        announce: Called after a commit that owes somebody something.
    """

    def after_step_insert(mapper: Mapper[Any], connection: Connection, step: Any) -> None:
        _note_of(step, step.id, TaskEvent.STEPS)

    def after_detail_change(mapper: Mapper[Any], connection: Connection, detail: Any) -> None:
        _note_of(detail, detail.task_id, TaskEvent.DETAILS)

    def before_subscription_insert(mapper: Mapper[Any], connection: Connection, subscription: Any) -> None:
        task_outbox.forget_free_ids(connection)

    def after_subscription_insert(mapper: Mapper[Any], connection: Connection, subscription: Any) -> None:
        session = object_session(subscription)
        task = subscription.__dict__.get("task")
        if task is not None and not task.is_finished and PendingLog.of(task).inserted is not None:
            # Its row was inserted in this transaction: nobody else can change it, and nothing is owed of it yet.
            return
        if session is not None:
            note_subscription(session, subscription.task_id)

    event.listen(step_class, "after_insert", after_step_insert)
    for detail_class in detail_classes:
        for name in ("after_insert", "after_update", "after_delete"):
            event.listen(detail_class, name, after_detail_change)
    event.listen(subscription_class, "before_insert", before_subscription_insert)
    event.listen(subscription_class, "after_insert", after_subscription_insert)
    event.listen(Session, "before_commit", _before_commit)
    event.listen(Session, "after_transaction_end", _after_transaction_end)

    def after_commit(session: Session) -> None:
        savepoint = session.get_nested_transaction()
        if savepoint is not None:
            _keep(session, savepoint)
            return
        noted = session.info.pop(_NOTED, None)
        if noted is not None and noted.owed:
            _announce(announce)

    event.listen(Session, "after_commit", after_commit)


def _announce(announce: Callable[[], None]) -> None:
    try:
        announce()
    except Exception as exc:
        # What is owed is committed, and upkeep finds it; the caller who committed must not suffer. Without a
        # `TaskState` in the process there is nobody to announce it to.
        logger.info("a commit that subscribers are to be told of was not announced: %s", exc)


def _note_of(target: Any, task_id: int | None, told: TaskEvent) -> None:
    session = object_session(target)
    if session is None:
        return
    note(session, task_id, told)
    # A file that moves to another task changes both.
    if "task_id" in inspect(target).attrs:
        for before in inspect(target).attrs["task_id"].history.deleted or ():
            note(session, before, told)


def _before_commit(session: Session) -> None:
    if session.in_nested_transaction():
        return
    # What this flush brings belongs to the same commit, which would flush only after its handlers.
    session.flush()
    noted: _Noted = session.info.setdefault(_NOTED, _Noted())
    _write(session, noted)
    noted.written = True


def _write(session: Session, noted: _Noted) -> None:
    changed: dict[int, set[TaskEvent]] = {}
    for task_id, told in set().union(*noted.changes.values()):
        changed.setdefault(task_id, set()).add(told)
    subscribed = set().union(*noted.subscriptions.values())
    noted.changes.clear()
    noted.subscriptions.clear()
    if not changed and not subscribed:
        return
    connection = session.connection()
    # By id, so that two sessions which change the same tasks do not wait for each other.
    for task_id in sorted(changed.keys() | subscribed):
        if task_id in subscribed:
            task_outbox.lock_for_subscription(connection, task_id)
            noted.owed |= task_outbox.owe_end(connection, task_id)
        else:
            task_outbox.lock(connection, task_id)
        noted.owed |= task_outbox.add(connection, task_id, changed.get(task_id, set()))


def _keep(session: Session, savepoint: SessionTransaction) -> None:
    """Let what happened in a savepoint that is released belong to what surrounds it."""
    noted: _Noted | None = session.info.get(_NOTED)
    outer = savepoint.parent
    if noted is None or outer is None:
        return
    if savepoint in noted.changes:
        noted.changes.setdefault(outer, set()).update(noted.changes.pop(savepoint))
    if savepoint in noted.subscriptions:
        noted.subscriptions.setdefault(outer, set()).update(noted.subscriptions.pop(savepoint))


def _after_transaction_end(session: Session, transaction: SessionTransaction) -> None:
    """Forget what was not committed."""
    # Not at a rollback: SQLAlchemy (2.0, 2.1) tells of none when a session is closed, and of one that is not the
    # savepoint's when a flush inside it fails.
    noted: _Noted | None = session.info.get(_NOTED)
    if noted is None:
        return
    if transaction.parent is None:
        session.info.pop(_NOTED)
    elif transaction.nested:
        noted.changes.pop(transaction, None)
        noted.subscriptions.pop(transaction, None)
