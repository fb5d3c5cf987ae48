"""The deliveries: what is owed to each subscription, whose turn it is, and what a call led to.

One row for each subscription and event. Changes are merged into it when they are collected; a message that was sent
takes no more of them, a newer one supersedes it. Core statements on a connection that is handed in; nothing here
commits. Lock order: changes by id, deliveries by subscription and event, then the host.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    update,
)

from .answers import Verdict
from .database import announce_after_commit
from .inserts import insert_absent
from .runner_tables import subscription_table, task_table
from .states import UNKNOWN, TaskEvent, TaskStatus, with_error_word
from .tables import NAME_LENGTH, change_table, delivery_table, host_table, upkeep_table

#: How many changes are merged in one transaction.
_BATCH: Final = 1000

#: Calls under way to one host: to one that behaves, and to one of which so many calls in a row have failed.
CALLS_PER_HOST: Final = 4
_CALLS_PER_FAILING_HOST: Final = 1
_FAILING: Final = 3

#: How many dead deliveries are replayed in one transaction.
REPLAYS_AT_ONCE: Final = 500

#: After so many failures in a row a host is left alone, for so many seconds at first and at most.
_FAILURES: Final = 10
_FIRST_REST_SECONDS: Final = 30.0
_LONGEST_REST_SECONDS: Final = 600.0

#: Names of the rows that say until when a message that wakes the deliveries is on its way, and when one arrives.
_WAKE: Final = "deliver"
_LATER_WAKE: Final = "deliver later"

_EVENTS: Final = tuple(sorted(TaskEvent))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call that is to be made now.

    Attributes:
        delivery_id: Id of the delivery.
        lease: Names the right to make it.
        task_id: Id of the task.
        event: What is told.
        webhook_href: Where to call.
        task_href: What to name as the source.
        message_id: The `webhook-id`.
        sequence: Number of the message.
        attempt: Which attempt at this message or those before it in the same back-off; the first is 1.
        changed_at: When what is told happened.
        status: Status of the task now, in the words of the wire.
        host: Host and port that are called.
    """

    delivery_id: int
    lease: str
    host: str
    task_id: int
    event: TaskEvent
    webhook_href: str
    task_href: str
    message_id: str
    sequence: int
    attempt: int
    changed_at: datetime
    status: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryView:
    """A delivery as people see it.

    Attributes:
        id: Its id.
        task_id: Id of the task.
        subscription_id: Id of the subscription.
        webhook_href: Where it goes; "" if nobody subscribes there any more.
        event: What it tells.
        state: `calling`, `due`, `waiting`, `dead`, or `told` if nothing is owed.
        sequence: Number of the newest message.
        attempts: Calls in a row without success.
        due_at: When the next call is due.
        called_at: When the last call was made.
        answer: What it led to.
        dead_at: When it was given up.
    """

    id: int
    task_id: int
    subscription_id: int
    webhook_href: str
    event: str
    state: str
    sequence: int
    attempts: int
    due_at: datetime | None
    called_at: datetime | None
    answer: str | None
    dead_at: datetime | None


def collect(connection: Connection, moment: datetime) -> bool:
    """Merge changes into their deliveries.

    Args:
        connection: In whose transaction to write; on SQLite it must hold the write lock.
        moment: Now, by the database's clock.

    Returns:
        Whether there may be more.
    """
    changes = connection.execute(
        select(change_table).order_by(change_table.c.id).limit(_BATCH).with_for_update(skip_locked=True)
    ).all()
    if not changes:
        return False
    connection.execute(delete(change_table).where(change_table.c.id.in_([change.id for change in changes])))
    newest: dict[tuple[int, str], Row[Any]] = {}
    for change in changes:
        newest[change.subscription_id, change.event] = change
    subscriptions = _subscriptions(connection, {subscription_id for subscription_id, _ in newest})
    owed = {
        key: change
        for key, change in newest.items()
        if key[0] in subscriptions and subscriptions[key[0]].task_id == change.task_id
    }
    if owed:
        _merge(connection, moment, owed, subscriptions)
    return len(changes) == _BATCH


def _merge(
    connection: Connection,
    moment: datetime,
    owed: Mapping[tuple[int, str], Row[Any]],
    subscriptions: Mapping[int, Row[Any]],
) -> None:
    """Merge the newest change of each subscription and event; as many statements for one as for a thousand."""
    ids = sorted({subscription_id for subscription_id, _ in owed})
    _prepare(connection, [subscriptions[subscription_id] for subscription_id in ids])
    rows = connection.execute(_of_subscriptions(ids).with_for_update()).all()
    merged = [
        {
            "row_id": row.id,
            # Two who collect at once may do so in any order; time must not go back for a receiver.
            "newest": max(filter(None, (changed.changed_at, row.changed_at, row.message_at))),
            "due": row.due_at or max(moment, row.not_before or moment),
        }
        for row in rows
        if (changed := owed.get((row.subscription_id, row.event))) is not None
    ]
    if merged:
        connection.execute(
            update(delivery_table)
            .where(delivery_table.c.id == bindparam("row_id"))
            .values(changed_at=bindparam("newest"), due_at=bindparam("due")),
            merged,
        )


def _subscriptions(connection: Connection, subscription_ids: Collection[int]) -> dict[int, Row[Any]]:
    rows = connection.execute(select(subscription_table).where(subscription_table.c.id.in_(subscription_ids)))
    return {row.id: row for row in rows}


def _of_subscriptions(subscription_ids: Collection[int]) -> Any:
    """Return the query for the rows of subscriptions, in the order in which they are locked."""
    return (
        select(delivery_table)
        .where(delivery_table.c.subscription_id.in_(subscription_ids))
        .order_by(delivery_table.c.subscription_id, delivery_table.c.event)
    )


def _prepare(connection: Connection, subscriptions: Sequence[Row[Any]]) -> None:
    """Make the rows of subscriptions, of each all of them or none."""
    known = {
        row.subscription_id: row.task_id
        for row in connection.execute(
            select(delivery_table.c.subscription_id, delivery_table.c.task_id)
            .where(delivery_table.c.subscription_id.in_([subscription.id for subscription in subscriptions]))
            .distinct()
        )
    }
    absent = [subscription for subscription in subscriptions if known.get(subscription.id) != subscription.task_id]
    # Of a subscription that was deleted behind our back, and whose id was given out again.
    stale = [subscription.id for subscription in absent if subscription.id in known]
    if stale:
        connection.execute(delete(delivery_table).where(delivery_table.c.subscription_id.in_(stale)))
    if absent:
        rows = [
            {
                "subscription_id": subscription.id,
                "event": event.value,
                "task_id": subscription.task_id,
                "host": host_of(subscription.webhook_href),
                "sequence": 0,
                "attempts": 0,
            }
            for subscription in absent
            for event in _EVENTS
        ]
        insert_absent(connection, delivery_table, rows)


def due(
    connection: Connection, moment: datetime, *, limit: int, besides: Collection[int] = ()
) -> list[tuple[int, str]]:
    """Return subscriptions that are to be called now and their hosts, the longest due first; each is named once.

    Those at hosts that are left alone, or have as many calls under way as they may, are left out: they must not keep
    others waiting.

    Args:
        connection: To read with.
        moment: Now, by the database's clock.
        limit: How many at most.
        besides: Subscriptions to leave out.
    """
    query = select(delivery_table.c.subscription_id, delivery_table.c.host).where(
        delivery_table.c.due_at <= moment, delivery_table.c.host.not_in(_blocked(moment))
    )
    if besides:
        query = query.where(delivery_table.c.subscription_id.not_in(besides))
    rows = connection.execute(query.order_by(delivery_table.c.due_at, delivery_table.c.id).limit(limit))
    return list({row.subscription_id: (row.subscription_id, row.host) for row in rows}.values())


def _blocked(moment: datetime) -> Any:
    """Return the query for the hosts that may get no call now."""
    calls = (
        select(delivery_table.c.host, func.count().label("count"))
        .where(delivery_table.c.leased_until > moment)
        .group_by(delivery_table.c.host)
        .subquery("calls")
    )
    under_way = func.coalesce(calls.c.count, 0)
    return (
        select(host_table.c.name)
        .outerjoin(calls, calls.c.host == host_table.c.name)
        .where(
            or_(
                host_table.c.closed_until > moment,
                under_way >= CALLS_PER_HOST,
                and_(host_table.c.failures >= _FAILING, under_way >= _CALLS_PER_FAILING_HOST),
            )
        )
    )


def next_due(connection: Connection, moment: datetime) -> datetime | None:
    """Return when the next call may be made, by the database's clock; None if none is owed.

    Those that wait only for another call to their host are left to whoever makes that call.
    """
    earliest = select(func.min(delivery_table.c.due_at)).where(delivery_table.c.host.not_in(_blocked(moment)))
    rested = (
        select(func.min(host_table.c.closed_until))
        .select_from(host_table)
        .join(delivery_table, delivery_table.c.host == host_table.c.name)
        .where(host_table.c.closed_until > moment, delivery_table.c.due_at.is_not(None))
    )
    found = [connection.execute(query).scalar() for query in (earliest, rested)]
    return min((at for at in found if at is not None), default=None)


def is_owed(connection: Connection, moment: datetime) -> bool:
    """Tell in one statement whether there are changes to collect or calls to make now."""
    changes = exists().where(change_table.c.id.is_not(None))
    calls = exists().where(delivery_table.c.due_at <= moment, delivery_table.c.host.not_in(_blocked(moment)))
    return bool(connection.execute(select(case((or_(changes, calls), 1), else_=0))).scalar())


def claim(
    connection: Connection, subscription_id: int, *, moment: datetime, lease_seconds: float, error_word: str
) -> Call | None:
    """Take the right to make the call of a subscription that is due the longest.

    Args:
        connection: In whose transaction to write; on SQLite it must hold the write lock.
        subscription_id: The subscription.
        moment: Now, by the database's clock.
        lease_seconds: After how long somebody else may make the call.
        error_word: The word for a failed task in what leaves the process.

    Returns:
        The call, to be ended by `settle`; None if there is none to make now: another call of this subscription is
        under way, the host has as many as it may, or is left alone for a while, or nobody subscribes any more.
    """
    rows = connection.execute(_of_subscriptions([subscription_id]).with_for_update(skip_locked=True)).all()
    if len(rows) < len(_EVENTS) or any(row.leased_until is not None and row.leased_until > moment for row in rows):
        return None
    ready = [row for row in rows if row.due_at is not None and row.due_at <= moment]
    if not ready:
        return None
    row = min(ready, key=lambda row: (row.due_at, row.id))
    subscription = connection.execute(
        select(subscription_table, task_table.c.task_status, task_table.c.finished_at)
        .join(task_table, task_table.c.id == subscription_table.c.task_id)
        .where(subscription_table.c.id == subscription_id)
    ).one_or_none()
    if subscription is None or subscription.task_id != row.task_id:
        _forget(connection, subscription_id)
        return None
    host = host_of(subscription.webhook_href)
    if not _may_be_called(connection, host, moment):
        return None
    goes_on = row.message_id is not None and row.changed_at is None
    attempt = 1 if row.message_id is None else row.attempts + 1
    lease = secrets.token_hex(8)
    until = moment + timedelta(seconds=lease_seconds)
    message_id = row.message_id if goes_on else f"msg_{secrets.token_hex(16)}"
    message_at = row.message_at if goes_on else row.changed_at or moment
    sequence = row.sequence if goes_on else row.sequence + 1
    connection.execute(
        update(delivery_table)
        .where(delivery_table.c.id == row.id)
        .values(
            sequence=sequence,
            changed_at=None,
            message_id=message_id,
            message_at=message_at,
            attempts=attempt,
            # Found again if whoever makes the call does not come back.
            due_at=until,
            lease=lease,
            leased_until=until,
            host=host,
            called_at=moment,
            dead_at=None,
        )
    )
    return Call(
        delivery_id=row.id,
        lease=lease,
        host=host,
        task_id=row.task_id,
        event=TaskEvent(row.event),
        webhook_href=subscription.webhook_href,
        task_href=subscription.task_href,
        message_id=message_id,
        sequence=sequence,
        attempt=attempt,
        changed_at=message_at,
        status=_wire_status(subscription, error_word),
    )


def _forget(connection: Connection, subscription_id: int) -> None:
    """Remove the deliveries of a subscription that is gone, whose rows the caller has locked.

    Its changes are left to `collect`, which drops them: who holds deliveries must not wait for changes.
    """
    connection.execute(delete(delivery_table).where(delivery_table.c.subscription_id == subscription_id))


def _wire_status(task: Any, error_word: str) -> str:
    if task.finished_at is None:
        return TaskStatus.PENDING.value
    return with_error_word(task.task_status, error_word) or UNKNOWN


def host_of(webhook_href: str) -> str:
    """Return host and port of a URL; "" for what is no URL."""
    try:
        return urlsplit(webhook_href).netloc.rpartition("@")[2].lower()[:NAME_LENGTH]
    except ValueError:
        return ""


def _may_be_called(connection: Connection, host: str, moment: datetime) -> bool:
    """Tell whether a host may get a call now; holds its row, so that two who ask at once count each other."""
    locked = select(host_table.c.name).where(host_table.c.name == host).with_for_update()
    if connection.execute(locked).first() is None:
        insert_absent(connection, host_table, [{"name": host, "failures": 0}])
        connection.execute(locked)
    # In a statement of its own, which sees what was committed before the lock was had.
    return connection.execute(_blocked(moment).where(host_table.c.name == host)).first() is None


def settle(
    connection: Connection, call: Call, verdict: Verdict, *, moment: datetime, min_interval_seconds: float
) -> None:
    """Note what a call led to; nothing if somebody else has the right to make it by now.

    Args:
        connection: In whose transaction to write; on SQLite it must hold the write lock.
        call: The call.
        verdict: What its result means.
        moment: Now, by the database's clock.
        min_interval_seconds: Time between the answer to a call that tells of details and the next one.
    """
    this = and_(delivery_table.c.id == call.delivery_id, delivery_table.c.lease == call.lease)
    if verdict.kind == "gone":
        # All rows of the subscription will go; whoever collects locks them in this order.
        ids = connection.execute(select(delivery_table.c.subscription_id).where(this)).scalars().all()
        connection.execute(_of_subscriptions(ids).with_for_update())
    row = connection.execute(select(delivery_table).where(this).with_for_update()).one_or_none()
    if row is None:
        return
    _judge_host(connection, row.host, verdict, moment)
    if verdict.kind == "gone":
        from_subscription = subscription_table.c.id == row.subscription_id
        connection.execute(delete(subscription_table).where(from_subscription))
        _forget(connection, row.subscription_id)
        return
    connection.execute(
        update(delivery_table)
        .where(delivery_table.c.id == row.id)
        .values(
            lease=None,
            leased_until=None,
            answered_at=moment,
            answer=verdict.reason[:NAME_LENGTH],
            **_after(row, verdict, moment, min_interval_seconds),
        )
    )


def _after(row: Row[Any], verdict: Verdict, moment: datetime, min_interval_seconds: float) -> dict[str, Any]:
    """Return what a verdict other than "gone" makes of a delivery."""
    # From the answer on, not from the call: a call that was slow on its way is not followed at once.
    earliest = moment + timedelta(seconds=min_interval_seconds if row.event == TaskEvent.DETAILS else 0)
    if verdict.kind == "retry":
        again = max(earliest, moment + timedelta(seconds=verdict.wait_seconds or 0.0))
        return {"not_before": again, "due_at": again}
    ended = {
        "message_id": None,
        "attempts": 0,
        "not_before": earliest,
        # A change that came while the call was under way.
        "due_at": earliest if row.changed_at is not None else None,
    }
    if verdict.kind in {"dead", "refused"}:
        ended.update(attempts=row.attempts, dead_at=moment)
    return ended


def _judge_host(connection: Connection, host: str, verdict: Verdict, moment: datetime) -> None:
    known = connection.execute(select(host_table).where(host_table.c.name == host).with_for_update()).one_or_none()
    # A call that was refused was not made, and says nothing of the host.
    if known is None or verdict.kind == "refused" or (not verdict.counts_against_host and not known.failures):
        return
    failures = known.failures + 1 if verdict.counts_against_host else 0
    closed_until = None
    if failures >= _FAILURES:
        rest = min(_FIRST_REST_SECONDS * 2 ** min(failures - _FAILURES, 10), _LONGEST_REST_SECONDS)
        closed_until = moment + timedelta(seconds=rest)
    connection.execute(
        update(host_table).where(host_table.c.name == host).values(failures=failures, closed_until=closed_until)
    )


def announce_wake(connection: Connection, moment: datetime, *, lost_after_seconds: float) -> bool:
    """Note that a message which wakes the deliveries is on its way, unless one is already.

    Args:
        connection: In whose transaction to write.
        moment: Now, by the database's clock.
        lost_after_seconds: After how long that message counts as lost.

    Returns:
        Whether it is to be sent.
    """
    until = moment + timedelta(seconds=lost_after_seconds)
    return _note_wake(connection, _WAKE, until, upkeep_table.c.until <= moment)


def announce_later_wake(connection: Connection, moment: datetime, arrives: datetime) -> bool:
    """Note that such a message arrives later, unless another one does before it; see `announce_wake`."""
    other = or_(upkeep_table.c.until <= moment, upkeep_table.c.until > arrives)
    return _note_wake(connection, _LATER_WAKE, arrives, other)


def note_woken(connection: Connection, moment: datetime) -> None:
    """Note that a message which wakes the deliveries has arrived: what is owed from now on needs another one."""
    connection.execute(
        update(upkeep_table).where(upkeep_table.c.name == _WAKE, upkeep_table.c.until > moment).values(until=moment)
    )


def _note_wake(connection: Connection, name: str, until: datetime, free: ColumnElement[bool]) -> bool:
    taken = connection.execute(update(upkeep_table).where(upkeep_table.c.name == name, free).values(until=until))
    if taken.rowcount:
        return True
    return insert_absent(connection, upkeep_table, [{"name": name, "owner": "", "until": until}]) > 0


def views(
    connection: Connection,
    moment: datetime,
    *,
    delivery_ids: Sequence[int] | None = None,
    task_id: int | None = None,
    dead: bool = False,
    limit: int | None = None,
) -> list[DeliveryView]:
    """Return deliveries for people, the newest first.

    Args:
        connection: To read with.
        moment: Now, by the database's clock.
        delivery_ids: Only these; None leaves none out.
        task_id: Only those of this task.
        dead: Only those that were given up.
        limit: How many at most.
    """
    query = select(delivery_table, subscription_table.c.webhook_href).outerjoin(
        subscription_table, subscription_table.c.id == delivery_table.c.subscription_id
    )
    query = query.where(_was_owed())
    if delivery_ids is not None:
        query = query.where(delivery_table.c.id.in_(delivery_ids))
    if task_id is not None:
        query = query.where(delivery_table.c.task_id == task_id)
    if dead:
        query = query.where(delivery_table.c.dead_at.is_not(None))
    rows = connection.execute(query.order_by(delivery_table.c.id.desc()).limit(limit))
    return [
        DeliveryView(
            id=row.id,
            task_id=row.task_id,
            subscription_id=row.subscription_id,
            webhook_href=row.webhook_href or "",
            event=row.event,
            state=_state(row, moment),
            sequence=row.sequence,
            attempts=row.attempts,
            due_at=row.due_at,
            called_at=row.called_at,
            answer=row.answer,
            dead_at=row.dead_at,
        )
        for row in rows
    ]


def _was_owed() -> ColumnElement[bool]:
    """Leave out the rows of events that nothing was ever owed of: they stand there only to be locked."""
    return or_(delivery_table.c.sequence > 0, delivery_table.c.due_at.is_not(None))


def _state(row: Row[Any], moment: datetime) -> str:
    if row.leased_until is not None and row.leased_until > moment:
        return "calling"
    if row.due_at is not None:
        return "due" if row.due_at <= moment else "waiting"
    return "dead" if row.dead_at is not None else "told"


def replay(
    connection: Connection, moment: datetime, *, delivery_ids: Sequence[int] | None = None, task_id: int | None = None
) -> list[int]:
    """Owe deliveries once more; each becomes a new message with a new sequence. The commit is announced.

    The hosts that they go to are called again at once: whoever asks for this has seen to it that they answer.

    Args:
        connection: In whose transaction to write; on SQLite it must hold the write lock.
        moment: Now, by the database's clock.
        delivery_ids: Which; None means those that were given up until now, at most `REPLAYS_AT_ONCE` of them.
        task_id: Only those of this task.

    Returns:
        Ids of those that will be made. Left out are those whose call is under way, and those to which nobody
        subscribes any more.
    """
    wanted = delivery_table.c.dead_at <= moment if delivery_ids is None else delivery_table.c.id.in_(delivery_ids)
    query = select(delivery_table.c.id, delivery_table.c.subscription_id).where(
        wanted,
        _was_owed(),
        or_(delivery_table.c.leased_until.is_(None), delivery_table.c.leased_until <= moment),
        exists(select(literal(1)).where(subscription_table.c.id == delivery_table.c.subscription_id)),
    )
    if task_id is not None:
        query = query.where(delivery_table.c.task_id == task_id)
    if delivery_ids is None:
        query = query.limit(REPLAYS_AT_ONCE)
    chosen = connection.execute(
        query.order_by(delivery_table.c.subscription_id, delivery_table.c.event).with_for_update()
    ).all()
    if not chosen:
        return []
    ids = [row.id for row in chosen]
    connection.execute(
        update(delivery_table)
        .where(delivery_table.c.id.in_(ids))
        .values(changed_at=moment, message_id=None, attempts=0, not_before=None, due_at=moment, dead_at=None)
    )
    hrefs = connection.execute(
        select(subscription_table.c.webhook_href).where(
            subscription_table.c.id.in_({row.subscription_id for row in chosen})
        )
    ).scalars()
    connection.execute(
        update(host_table)
        .where(host_table.c.name.in_(sorted({host_of(href) for href in hrefs})))
        .values(closed_until=None)
    )
    announce_after_commit(connection)
    return sorted(ids)
