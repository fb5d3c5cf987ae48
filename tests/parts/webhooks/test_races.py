"""Forced races: a change beside a call, a subscription beside the end, callers and deliverers at once."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, select, update
from sqlalchemy import event as orm_event
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from qhana_taskstate import ProcessingTask, TaskState, TaskUpdateSubscription
from qhana_taskstate.clock import now
from qhana_taskstate.database.dialects import database_time
from qhana_taskstate.database.tables.runner import subscription_table
from qhana_taskstate.facts import ExecutionKey, TaskRef
from qhana_taskstate.states import ExecutionState
from qhana_taskstate.store.closing import close
from qhana_taskstate.store.executions import lookup
from qhana_taskstate.store.task import jobs
from qhana_taskstate.store.task.locks import lock_task
from qhana_taskstate.testing.receiver import Reply, Told, WebhookReceiver
from qhana_taskstate.webhooks import claim
from tests.apps.jobs import say
from tests.parts.conftest import in_threads
from tests.parts.webhooks.conftest import SECRET, MakeState
from tests.parts.webhooks.owed import NOBODY, TASK, saved_task, subscribed_task, take_owed
from tests.parts.webhooks.telling import change, telling
from tests.waiting import wait_until

pytestmark = [pytest.mark.mariadb, pytest.mark.slow, pytest.mark.timeout(240)]

#: The longest that one side of a race waits for the other, in seconds.
_SPREAD = 0.004


def _rounds(state: TaskState) -> range:
    return range(int(os.environ.get("RACE_PAIRS", "30" if state.database.dialect in {"mysql", "mariadb"} else "80")))


def _a_moment() -> None:
    time.sleep(random.random() * _SPREAD)  # noqa: S311  (spreads races, guards nothing)


def test_change_beside_a_call_is_told_by_a_later_one_and_in_order(
    make_state: MakeState, receiver: WebhookReceiver
) -> None:
    states = [make_state(wakes=False, webhook_min_interval_seconds=0) for _ in range(2)]
    task = subscribed_task(states[0], webhook_href=receiver.href("/a"), event="details")
    under_way: list[int] = []
    overlaps: list[int] = []

    def answer(told: Told) -> Reply:
        under_way.append(told.number)
        if len(under_way) > 1:
            overlaps.append(told.number)
        _a_moment()
        under_way.remove(told.number)
        return Reply()

    receiver.answer = answer
    with telling(*states):
        for _ in _rounds(states[0]):
            _a_moment()
            change(states[0], task.id, "details")
            _a_moment()
            last = now()
            change(states[0], task.id, "details")
            wait_until(
                "the last change was told",
                lambda last=last: any(_tells_of(call) >= last for call in reversed(receiver.calls)),  # type: ignore[misc]
                interval=0.001,
            )
    assert overlaps == []
    assert [call.sequence for call in receiver.calls] == list(range(1, len(receiver.calls) + 1))
    assert len({call.message_id for call in receiver.calls}) == len(receiver.calls)


def _tells_of(call: Told) -> datetime:
    """Return when the newest change that a call tells of was made."""
    return datetime.fromisoformat(call.message["timestamp"])


def _running(state: TaskState, number: int) -> list[tuple[TaskRef, ExecutionKey]]:
    """Start tasks, each with one execution."""
    found = []
    for _ in range(number):
        task = state.start(say.s())
        with state.database.reading() as connection:
            job = jobs.find_job(connection, task.id)
            (celery_id,) = lookup.open_celery_ids(connection, task.id)
        assert job is not None
        found.append((job.ref, ExecutionKey(celery_id)))
    return found


def _close(state: TaskState, ref: TaskRef, key: ExecutionKey) -> None:
    closing = close.Closing(key=key, name="say", state=ExecutionState.SUCCESS)
    outcome = state.recorder.write(lambda connection: close.close(connection, ref, closing))
    state.recorder.finish_showing(ref.task_id, outcome)


def _end_by_hand(state: TaskState, task_id: int) -> None:
    with state.session_scope() as session:
        task = session.get_one(ProcessingTask, task_id)
        task.task_status = "SUCCESS"
        session.flush()
        _a_moment()
        session.commit()


def _subscribe(state: TaskState, task_id: int, webhook_href: str = NOBODY) -> None:
    _a_moment()
    with state.session_scope():
        state.subscribe(task_id, webhook_href, TASK)


def _save_subscription(state: TaskState, task_id: int) -> None:
    _a_moment()
    with state.session_scope() as session:
        session.add(TaskUpdateSubscription(session.get_one(ProcessingTask, task_id), NOBODY, TASK))
        session.commit()


@pytest.mark.parametrize("subscribing", [_subscribe, _save_subscription])
@pytest.mark.parametrize("ends", ["recorder", "by hand", "by hand, nobody's"])
def test_subscription_beside_the_end_hears_of_it(
    state: TaskState, ends: str, subscribing: Callable[[TaskState, int], None]
) -> None:
    rounds = len(_rounds(state)) // 3
    if ends == "by hand, nobody's":
        ids = [saved_task(state).id for _ in range(rounds)]
        works: list[Callable[[], None]] = [partial(_end_by_hand, state, task_id) for task_id in ids]
    else:
        running = _running(state, rounds)
        ids = [ref.task_id for ref, _ in running]
        works = [
            partial(_close, state, ref, key) if ends == "recorder" else partial(_end_by_hand, state, ref.task_id)
            for ref, key in running
        ]
    state.session.close()
    for task_id, end in zip(ids, works, strict=True):
        assert in_threads(end, partial(subscribing, state, task_id)) == [None, None]
        assert take_owed(state, task_id) in (["status"], ["details", "status"])


@pytest.mark.databases("postgresql", "mariadb")
def test_subscription_beside_an_end_that_a_plugin_delays_hears_of_it(state: TaskState) -> None:
    running = _running(state, 30)
    state.session.close()

    def change_slowly(task_id: int) -> None:
        with state.session_scope() as session:
            session.execute(update(ProcessingTask).where(ProcessingTask.id == task_id).values(progress_value=1))
            time.sleep(0.02)
            _a_moment()
            session.commit()

    for ref, key in running:
        told = in_threads(
            partial(change_slowly, ref.task_id),
            partial(_close, state, ref, key),
            partial(_subscribe, state, ref.task_id),
        )
        assert told == [None, None, None]
        state.upkeep()
        assert take_owed(state, ref.task_id).count("status") == 1


def test_two_callers_subscribe_once(state: TaskState) -> None:
    rounds = _rounds(state)
    ids = [ref.task_id for ref, _ in _running(state, len(rounds) // 2)]
    ids += [saved_task(state).id for _ in range(len(rounds) // 2)]
    state.session.close()
    for task_id in ids:
        subscribe = partial(_subscribe, state, task_id)
        assert in_threads(subscribe, subscribe) == [None, None]
        assert _subscriptions(state, task_id) == 1


@pytest.mark.databases("postgresql")
@pytest.mark.parametrize("first_work", ["start", "finish"])
def test_two_callers_subscribe_once_beside_the_first_work_of_a_task(
    state: TaskState, monkeypatch: pytest.MonkeyPatch, first_work: str
) -> None:
    task_id = saved_task(state).id
    state.session.close()
    looked, go, ended = threading.Event(), threading.Event(), threading.Event()
    late: list[int] = []

    def lock_late(connection: Connection, locked_id: int) -> Any:
        if not late:
            # It has seen no job row.
            late.append(threading.get_ident())
            looked.set()
            go.wait(20)
        return lock_task(connection, locked_id)

    def before_commit(session: Session) -> None:
        if looked.is_set() and threading.get_ident() not in (*late, main):
            go.set()
            ended.wait(0.5)

    def first() -> None:
        _subscribe(state, task_id)
        ended.set()

    def second() -> None:
        looked.wait(20)
        if first_work == "start":
            with state.session_scope():
                state.start(say.s(), task=task_id, finishes=False)
        else:
            state.finish(task_id)
        orm_event.listen(Session, "before_commit", before_commit)
        _subscribe(state, task_id)

    main = threading.get_ident()
    monkeypatch.setattr("qhana_taskstate.store.task.outbox.lock_task", lock_late)
    try:
        assert in_threads(first, second) == [None, None]
    finally:
        if orm_event.contains(Session, "before_commit", before_commit):
            orm_event.remove(Session, "before_commit", before_commit)
    assert _subscriptions(state, task_id) == 1


def test_two_callers_unsubscribe_once(state: TaskState) -> None:
    task_id = saved_task(state).id

    def unsubscribe() -> int:
        _a_moment()
        with state.session_scope():
            return state.unsubscribe(task_id, NOBODY)

    for _ in _rounds(state):
        state.subscribe(task_id, NOBODY, TASK)
        state.session.close()
        assert sorted(in_threads(unsubscribe, unsubscribe)) == [0, 1]


def _subscriptions(state: TaskState, task_id: int) -> int:
    with state.database.reading() as connection:
        rows = connection.execute(select(subscription_table.c.id).where(subscription_table.c.task_id == task_id))
        return len(rows.all())


@pytest.mark.databases("mariadb")
def test_two_callers_of_a_host_with_repeatable_read_subscribe_once(
    state: TaskState, make_state: MakeState, kept_database_url: str
) -> None:
    ids = [ref.task_id for ref, _ in _running(state, 40)]
    state.session.close()
    engine = create_engine(kept_database_url)
    own = scoped_session(sessionmaker(engine))
    hosted = make_state(wakes=False, session=own, engine=engine)

    def subscribe(task_id: int) -> None:
        try:
            hosted.subscribe(task_id, NOBODY, TASK)
        finally:
            own.remove()

    for task_id in ids:
        assert in_threads(partial(subscribe, task_id), partial(subscribe, task_id)) == [None, None]
        assert _subscriptions(state, task_id) == 1
    engine.dispose()


def test_subscribing_and_starting_beside_a_session_of_the_same_task(state: TaskState) -> None:
    ids = [ref.task_id for ref, _ in _running(state, 30)]
    state.session.close()

    def ask(task_id: int) -> None:
        with state.session_scope() as session:
            task = session.get_one(ProcessingTask, task_id)
            task.progress_value = 1
            session.flush()
            _a_moment()
            task.add_task_log_entry("asking")
            session.commit()

    def start(task_id: int) -> None:
        with state.session_scope():
            _a_moment()
            state.start(say.s(), task=task_id, webhook_href=f"{NOBODY}/started", task_href=TASK)

    for task_id in ids:
        told = in_threads(partial(ask, task_id), partial(_subscribe, state, task_id), partial(start, task_id))
        assert told == [None, None, None]


def test_unsubscribed_beside_a_call_hears_at_most_the_one_under_way(
    make_state: MakeState, receiver: WebhookReceiver
) -> None:
    states = [make_state(wakes=False, webhook_min_interval_seconds=0) for _ in range(2)]
    state = states[0]
    left: dict[str, float] = {}

    def answer(told: Told) -> Reply:
        _a_moment()
        return Reply(random.choice([204, 500, 404]))  # noqa: S311

    receiver.answer = answer
    with telling(*states):
        for number in range(60):
            path = f"/{number}"
            task = subscribed_task(state, webhook_href=receiver.href(path))
            change(state, task.id, "details", "steps")
            _a_moment()
            state.unsubscribe(task, receiver.href(path))
            left[path] = time.monotonic()
            change(state, task.id, "details", "status")
        wait_until("nothing is owed", lambda: not _is_owed(state))
    late: dict[str, int] = defaultdict(int)
    for call in receiver.calls:
        late[call.path] += call.came_at > left[call.path]
    assert max(late.values(), default=0) <= 1


def _is_owed(state: TaskState) -> bool:
    with state.database.reading() as connection:
        moment = database_time(connection)
        return claim.is_owed(connection, moment) or claim.next_due(connection, moment) is not None


def test_gone_beside_changes_stops_nobody(make_state: MakeState, receiver: WebhookReceiver) -> None:
    states = [make_state(wakes=False, webhook_min_interval_seconds=0) for _ in range(2)]
    wanted: dict[int, datetime] = {}
    with WebhookReceiver(secrets=[SECRET], answer=lambda told: Reply(410)) as gone, telling(*states):
        for _ in range(30):
            task = subscribed_task(states[0], webhook_href=gone.href())
            states[0].subscribe(task, receiver.href(), TASK)
            for _ in range(3):
                change(states[0], task.id, "details", "status")
            wanted[task.id] = now()
            change(states[0], task.id, "details", "status")
        wait_until("nothing is owed", lambda: not _is_owed(states[0]))
    for task_id, last in wanted.items():
        for event in ("details", "status"):
            told = [call for call in receiver.told(event=event) if call.message["data"]["task_id"] == task_id]
            assert _tells_of(told[-1]) >= last, (task_id, event)
        assert _subscriptions(states[0], task_id) == 1
