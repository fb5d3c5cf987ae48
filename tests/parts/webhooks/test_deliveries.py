"""What deliverers do with what is owed, each promise on every database."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import delete, insert, select
from sqlalchemy.exc import OperationalError

from qhana_taskstate import ProcessingTask, TaskState
from qhana_taskstate.database.dialects import database_time
from qhana_taskstate.database.tables.deliveries import change_table, delivery_table, host_table
from qhana_taskstate.database.tables.runner import subscription_table, task_table
from qhana_taskstate.models.subscription import TaskUpdateSubscription
from qhana_taskstate.testing.receiver import Reply, Told, WebhookReceiver
from qhana_taskstate.webhooks import call as webhooks_call
from qhana_taskstate.webhooks import claim as webhooks_claim
from qhana_taskstate.webhooks import collect as webhooks_collect
from qhana_taskstate.webhooks import replay as webhooks_replay
from qhana_taskstate.webhooks.hosts import CALLS_PER_HOST
from tests.parts.webhooks.conftest import SECRET, MakeState
from tests.parts.webhooks.owed import TASK, saved_task, subscribed_task
from tests.parts.webhooks.telling import change, delivery, let_time_pass, tell_until, telling, views
from tests.statements import statements
from tests.waiting import wait_until

pytestmark = pytest.mark.mariadb

#: A wait that no test sees the end of, unless it lets time pass.
LONG = [1000.0] * 3


class Busy:
    """An answer that takes its time, and counts how many calls are under way at once."""

    def __init__(self, seconds: float = 0.0, status: int = 204) -> None:
        self.seconds = seconds
        self.status = status
        self.most = 0
        self.most_of_path: dict[str, int] = defaultdict(int)
        self._now: Counter[str] = Counter()
        self._guard = threading.Lock()

    def __call__(self, told: Told) -> Reply:
        with self._guard:
            self._now[told.path] += 1
            self.most = max(self.most, self._now.total())
            self.most_of_path[told.path] = max(self.most_of_path[told.path], self._now[told.path])
        time.sleep(self.seconds)
        with self._guard:
            self._now[told.path] -= 1
        return Reply(self.status)


@contextmanager
def _slow_first_calls(receiver: WebhookReceiver) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Let the first calls of a receiver wait; yields what tells that it came, and what lets it go on."""
    came, go_on = threading.Event(), threading.Event()

    def answer(told: Told) -> Reply:
        came.set()
        go_on.wait(10)
        return Reply()

    receiver.answer = answer
    try:
        yield came, go_on
    finally:
        go_on.set()


def _in_thread(state: TaskState) -> threading.Thread:
    thread = threading.Thread(target=state.deliverer.run)
    thread.start()
    return thread


# Merging and order


def test_thousand_changes_are_one_call(state: TaskState, receiver: WebhookReceiver) -> None:
    task = subscribed_task(state, webhook_href=receiver.href())
    for _ in range(20):
        change(state, task.id, "details", times=50)
    state.deliverer.run()
    assert [call.event for call in receiver.calls] == ["details"]
    with state.database.reading() as connection:
        assert connection.execute(select(change_table)).first() is None


def _statements_of_a_collection(state: TaskState) -> int:
    """Collect all that is owed; return how many statements it took."""
    with statements(state.database) as sent:
        assert not state.recorder.write(
            lambda connection: webhooks_collect.collect(connection, database_time(connection))
        )
    return len(sent)


def test_changes_of_many_subscriptions_are_collected_in_as_many_statements_as_those_of_one(state: TaskState) -> None:
    tasks = [subscribed_task(state) for _ in range(60)]
    for _ in range(2):
        change(state, tasks[0].id, "details", "status")
        few = _statements_of_a_collection(state)
        for task in tasks:
            change(state, task.id, "details", "status")
        assert _statements_of_a_collection(state) <= few + 1
    assert len([view for view in views(state) if view.state == "due"]) == 2 * len(tasks)


def test_changes_that_come_faster_than_they_are_collected_keep_no_call_waiting(
    state: TaskState, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = subscribed_task(state, webhook_href=receiver.href(), event="details")
    change(state, task.id, "details")
    began = time.monotonic()
    collect = webhooks_collect.collect

    def collect_from_many(connection: Any, moment: Any) -> bool:
        assert time.monotonic() - began < 20, "no call was made"
        collect(connection, moment)
        return not receiver.calls

    monkeypatch.setattr(webhooks_collect, "collect", collect_from_many)
    assert state.deliverer.run() == 1


def test_changes_during_a_slow_call_are_one_further_call(state: TaskState, receiver: WebhookReceiver) -> None:
    task = subscribed_task(state, webhook_href=receiver.href())
    change(state, task.id, "details")
    with _slow_first_calls(receiver) as (came, go_on):
        run = _in_thread(state)
        assert came.wait(5)
        for _ in range(20):
            change(state, task.id, "details", times=50)
        go_on.set()
        run.join()
        tell_until(state, "all was told", lambda: len(receiver.calls) >= 2)
    assert [call.sequence for call in receiver.calls] == [1, 2]
    assert len({call.message_id for call in receiver.calls}) == 2
    state.deliverer.run()
    assert len(receiver.calls) == 2


def test_attempt_keeps_its_id_and_takes_no_more_changes(make_state: MakeState, receiver: WebhookReceiver) -> None:
    state = make_state(wakes=False, webhook_retry_schedule=LONG)
    task = subscribed_task(state, webhook_href=receiver.href())
    receiver.answer = lambda told: Reply(500)
    change(state, task.id, "details")
    state.deliverer.run()
    let_time_pass(state, 1500)
    state.deliverer.run()
    first, second = receiver.calls
    assert (first.message_id, first.sequence) == (second.message_id, second.sequence)
    assert first.message == second.message

    before = delivery(state)
    change(state, task.id, "details")
    state.deliverer.run()
    after = delivery(state)
    assert len(receiver.calls) == 2, "a newer change must not end the back-off"
    assert (after.due_at, after.attempts, after.message_id) == (before.due_at, before.attempts, before.message_id)
    let_time_pass(state, 1500)
    state.deliverer.run()
    third = receiver.calls[2]
    assert third.message_id != first.message_id
    assert third.sequence == 2
    assert delivery(state).attempts == 3


def test_database_that_answers_late_puts_no_call_into_the_future(
    state: TaskState, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(connection: Any) -> Any:
        time.sleep(0.5)
        return database_time(connection)

    monkeypatch.setattr("qhana_taskstate.webhooks.deliverer.database_time", late)
    task = subscribed_task(state, event="details", webhook_href=receiver.href())
    change(state, task.id, "details")
    wait_until("it was told", lambda: state.deliverer.run())
    with state.database.reading() as connection:
        moment = database_time(connection)

    told = delivery(state)
    assert told.called_at <= told.answered_at <= moment


def test_sequences_are_those_of_one_subscription_and_event(state: TaskState, receiver: WebhookReceiver) -> None:
    first = subscribed_task(state, webhook_href=receiver.href("/first"))
    state.subscribe(first, receiver.href("/second"), TASK, event="steps")
    for _ in range(3):
        change(state, first.id, "steps", "status")
        tell_until(state, "all was told", lambda: not _is_owed(state))
    told = defaultdict(list)
    for call in receiver.calls:
        told[call.path, call.event].append(call.sequence)
    assert told == {("/first", "steps"): [1, 2, 3], ("/first", "status"): [1, 2, 3], ("/second", "steps"): [1, 2, 3]}


def _is_owed(state: TaskState) -> bool:
    with state.database.reading() as connection:
        return webhooks_claim.is_owed(connection, database_time(connection))


def test_subscription_gets_one_call_at_a_time_from_several_deliverers(
    make_state: MakeState, receiver: WebhookReceiver
) -> None:
    states = [make_state(wakes=False) for _ in range(3)]
    task = subscribed_task(states[0], webhook_href=receiver.href("/a"))
    busy = receiver.answer = Busy(0.05)
    with telling(*states):
        for _ in range(10):
            change(states[0], task.id, "status", "steps", "details")
            time.sleep(0.02)
        wait_until("all was told", lambda: {call.event for call in receiver.calls} == {"status", "steps", "details"})
    assert busy.most_of_path == {"/a": 1}
    for event in ("status", "steps", "details"):
        sequences = [call.sequence for call in receiver.told(event=event)]
        assert sequences == list(range(1, len(sequences) + 1))


def test_event_in_back_off_holds_up_no_other(make_state: MakeState, receiver: WebhookReceiver) -> None:
    state = make_state(wakes=False, webhook_retry_schedule=LONG)
    task = subscribed_task(state, webhook_href=receiver.href())
    receiver.answer = lambda told: Reply(500 if told.event == "details" else 204)
    change(state, task.id, "details")
    state.deliverer.run()
    change(state, task.id, "status", "steps", "details")
    state.deliverer.run()
    assert [call.event for call in receiver.calls[:1]] == ["details"]
    assert sorted(call.event for call in receiver.calls[1:]) == ["status", "steps"]


def test_details_keep_their_distance_and_others_need_none(make_state: MakeState, receiver: WebhookReceiver) -> None:
    state = make_state(wakes=False, webhook_min_interval_seconds=0.7)
    task = subscribed_task(state, webhook_href=receiver.href())
    with telling(state):
        for _ in range(20):
            change(state, task.id, "details", "status")
            time.sleep(0.1)
        wait_until("details were told", lambda: len(receiver.told(event="details")) >= 3)
    times = [call.came_at for call in receiver.told(event="details")]
    assert all(later - earlier >= 0.5 for earlier, later in pairwise(times))
    assert len(receiver.told(event="status")) > 2 * len(times)


def test_change_within_the_distance_is_told_at_its_end(make_state: MakeState, receiver: WebhookReceiver) -> None:
    state = make_state(wakes=False, webhook_min_interval_seconds=0.5)
    task = subscribed_task(state, webhook_href=receiver.href())
    change(state, task.id, "details")
    state.deliverer.run()
    change(state, task.id, "details")
    tell_until(state, "the last change was told", lambda: len(receiver.calls) == 2)
    assert 0.35 <= receiver.calls[1].came_at - receiver.calls[0].came_at < 2


# Receivers that are slow or dead


def test_host_gets_a_few_calls_at_once(make_state: MakeState, receiver: WebhookReceiver) -> None:
    states = [make_state(wakes=False) for _ in range(3)]
    task = saved_task(states[0])
    for number in range(15):
        states[0].subscribe(task, receiver.href(f"/{number}"), TASK, event="status")
    busy = receiver.answer = Busy(0.15)
    change(states[0], task.id, "status")
    with telling(*states):
        wait_until("all were told", lambda: len({call.path for call in receiver.calls}) == 15)
    assert len(receiver.calls) == 15
    assert 1 < busy.most <= CALLS_PER_HOST


@pytest.mark.parametrize("status", [408, 503])
def test_host_that_fails_ten_times_is_left_alone_and_tried_by_one(
    make_state: MakeState, receiver: WebhookReceiver, status: int
) -> None:
    state = make_state(wakes=False, webhook_retry_schedule=LONG)
    task = saved_task(state)
    for number in range(16):
        state.subscribe(task, receiver.href(f"/{number}"), TASK, event="status")
    receiver.answer = lambda told: Reply(status)
    change(state, task.id, "status")

    def closed() -> bool:
        let_time_pass(state, 4)
        state.deliverer.run()
        with state.database.reading() as connection:
            return connection.execute(select(host_table.c.closed_until)).scalar_one() is not None

    wait_until("the host was left alone", closed)
    tried = len(receiver.calls)
    assert 10 <= tried < 10 + CALLS_PER_HOST
    let_time_pass(state, 5)
    state.deliverer.run()
    assert len(receiver.calls) == tried

    busy = receiver.answer = Busy(0.3)
    let_time_pass(state, 60)
    probe = _in_thread(state)
    wait_until("it was tried", lambda: len(receiver.calls) > tried, timeout=5)
    probe.join()
    # The others follow once it has answered.
    assert receiver.calls[tried + 1].came_at - receiver.calls[tried].came_at >= 0.3
    tell_until(state, "all were told", lambda: len({call.path for call in receiver.calls}) == 16)
    assert busy.most <= CALLS_PER_HOST


def test_failed_probe_doubles_the_rest(make_state: MakeState, receiver: WebhookReceiver) -> None:
    state = make_state(wakes=False, webhook_retry_schedule=[0.0] * 30)
    task = subscribed_task(state, webhook_href=receiver.href(), event="status")
    receiver.answer = lambda told: Reply(500)
    change(state, task.id, "status")
    state.deliverer.run()
    assert len(receiver.calls) == 10
    rests = []
    for _ in range(7):
        rests.append(_rest_of_host(state))
        let_time_pass(state, rests[-1] + 0.1)
        state.deliverer.run()
    assert len(receiver.calls) == 17
    assert [round(seconds, -1) for seconds in rests] == [30, 60, 120, 240, 480, 600, 600]


def _rest_of_host(state: TaskState) -> float:
    with state.database.reading() as connection:
        until = connection.execute(select(host_table.c.closed_until)).scalar_one()
        return float((until - database_time(connection)).total_seconds())


def test_hanging_receiver_delays_no_other_of_the_same_run(state: TaskState, receiver: WebhookReceiver) -> None:
    with WebhookReceiver(secrets=[SECRET]) as hanging, _slow_first_calls(hanging) as (_, go_on):
        task = saved_task(state)
        for number in range(20):
            state.subscribe(task, hanging.href(f"/{number}"), TASK)
        change(state, task.id, "status", "details")
        run = _in_thread(state)
        wait_until("the slow one is called", lambda: len(hanging.calls) == CALLS_PER_HOST)
        state.subscribe(task, receiver.href(), TASK)
        began = time.monotonic()
        change(state, task.id, "status", "details")
        wait_until("the other one was told", lambda: len(receiver.calls) == 2)
        assert time.monotonic() - began < 1.5
        go_on.set()
        run.join()


def test_hanging_receiver_delays_no_other_after_the_time_of_a_run(
    state: TaskState, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qhana_taskstate.webhooks.deliverer.RUN_SECONDS", 0.3)
    with WebhookReceiver(secrets=[SECRET]) as hanging, _slow_first_calls(hanging) as (came, go_on):
        task = saved_task(state)
        state.subscribe(task, hanging.href(), TASK, event="status")
        change(state, task.id, "status")
        began = time.monotonic()
        run = _in_thread(state)
        assert came.wait(20)
        wait_until("the time of the run is over", lambda: time.monotonic() - began > 0.5)
        state.subscribe(task, receiver.href(), TASK, event="steps")
        change(state, task.id, "steps")
        wait_until("the other one was told", lambda: receiver.calls)
        assert run.is_alive(), "the hanging call must still be under way"
        go_on.set()
        run.join()


def test_hundreds_of_subscriptions_to_one_hanging_receiver_delay_no_other(
    state: TaskState, receiver: WebhookReceiver
) -> None:
    with WebhookReceiver(secrets=[SECRET]) as hanging, _slow_first_calls(hanging) as (came, go_on):
        task = saved_task(state)
        rows = [
            {"task_id": task.id, "webhook_href": hanging.href(f"/{number}"), "task_href": TASK, "event_type": "status"}
            for number in range(300)
        ]
        state.session.execute(insert(subscription_table), rows)
        state.session.commit()
        change(state, task.id, "status")
        run = _in_thread(state)
        assert came.wait(20)
        state.subscribe(task, receiver.href(), TASK, event="steps")
        began = time.monotonic()
        change(state, task.id, "steps")
        wait_until("the other one was told", lambda: receiver.calls)
        assert time.monotonic() - began < 1.5
        with state.database.transaction() as connection:
            connection.execute(delete(subscription_table))
        go_on.set()
        run.join()


# What an answer leads to


@pytest.mark.parametrize("status", [200, 204, 301, 303, 400, 401, 404, 422])
def test_final_answer_is_noted_and_ends_nothing(state: TaskState, receiver: WebhookReceiver, status: int) -> None:
    task = subscribed_task(state, webhook_href=receiver.href(), event="status")
    receiver.answer = lambda told: Reply(status, {"location": receiver.href("/elsewhere")})
    change(state, task.id, "status")
    state.deliverer.run()
    let_time_pass(state, 1000)
    state.deliverer.run()
    (seen,) = views(state)
    assert (seen.state, seen.answer, seen.sequence, seen.dead_at) == ("told", f"answered {status}", 1, None)
    assert [call.path for call in receiver.calls] == ["/hook"]
    change(state, task.id, "status")
    state.deliverer.run()
    assert [call.sequence for call in receiver.calls] == [1, 2]


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503])
def test_answer_that_is_no_end_is_asked_for_again(state: TaskState, receiver: WebhookReceiver, status: int) -> None:
    task = subscribed_task(state, webhook_href=receiver.href(), event="status")
    receiver.answer = lambda told: Reply(status if told.number < 2 else 204)
    change(state, task.id, "status")
    tell_until(state, "it was told", lambda: views(state)[0].state == "told")
    assert len(receiver.calls) == 3
    assert len({(call.message_id, call.sequence) for call in receiver.calls}) == 1


def test_receiver_may_ask_for_a_longer_wait(make_state: MakeState, receiver: WebhookReceiver) -> None:
    state = make_state(wakes=False, webhook_retry_schedule=[0.1, 0.1])
    task = subscribed_task(state, webhook_href=receiver.href(), event="status")
    receiver.answer = lambda told: Reply(*((429, {"retry-after": "100"}) if told.number == 0 else (204, {})))
    change(state, task.id, "status")
    state.deliverer.run()
    let_time_pass(state, 90)
    state.deliverer.run()
    assert len(receiver.calls) == 1
    let_time_pass(state, 11)
    state.deliverer.run()
    assert len(receiver.calls) == 2


def test_gone_receiver_is_unsubscribed(state: TaskState, receiver: WebhookReceiver) -> None:
    task = subscribed_task(state, webhook_href=receiver.href())
    state.subscribe(task, receiver.href("/other"), TASK, event="steps")
    receiver.answer = lambda told: Reply(410 if told.path == "/hook" else 204)
    change(state, task.id, "status", "steps", "details")
    tell_until(state, "all was told", lambda: not _is_owed(state))
    assert len(receiver.told(path="/hook")) == 1
    assert len(receiver.told(path="/other")) == 1
    assert len(TaskUpdateSubscription.get_by_task_and_event(task)) == 1
    with state.database.reading() as connection:
        assert {row.event for row in connection.execute(select(delivery_table))} == {"status", "steps", "details"}
        assert len(set(connection.execute(select(delivery_table.c.subscription_id)).scalars())) == 1


def test_receiver_that_never_answers_is_tried_again(make_state: MakeState, receiver: WebhookReceiver) -> None:
    state = make_state(wakes=False, webhook_timeout_seconds=0.3, webhook_retry_schedule=[0.1])
    task = subscribed_task(state, webhook_href=receiver.href(), event="status")
    receiver.answer = Busy(1.0)
    change(state, task.id, "status")
    tell_until(state, "it was given up", lambda: views(state, dead=True))
    assert len(receiver.calls) == 2
    assert str(views(state)[0].answer).startswith("timeout: not done after 0.3 s; given up after 2 attempts")


def test_receiver_that_is_not_there_is_given_up_and_can_be_called_again(make_state: MakeState) -> None:
    state = make_state(wakes=False, webhook_retry_schedule=[0.0, 0.0])
    gone = WebhookReceiver(secrets=[SECRET])
    task = subscribed_task(state, webhook_href=gone.href(), event="status")
    gone.close()
    change(state, task.id, "status")
    tell_until(state, "it was given up", lambda: views(state, dead=True))
    (dead,) = views(state, dead=True)
    assert (dead.state, dead.attempts, dead.due_at, dead.sequence) == ("dead", 3, None, 1)
    assert str(dead.answer).startswith("connection: ")
    assert views(state, dead=True, task_id=task.id + 1) == []
    state.deliverer.run()

    with WebhookReceiver(secrets=[SECRET], port=gone.port) as back:
        replay = state.recorder.write(lambda connection: webhooks_replay.replay(connection, database_time(connection)))
        assert len(replay) == 1
        state.deliverer.run()
        assert [call.sequence for call in back.calls] == [2]
        assert views(state, dead=True) == []
        assert (
            state.recorder.write(lambda connection: webhooks_replay.replay(connection, database_time(connection))) == []
        )


def test_change_after_a_delivery_was_given_up_is_told(make_state: MakeState, receiver: WebhookReceiver) -> None:
    state = make_state(wakes=False, webhook_retry_schedule=[0.0])
    task = subscribed_task(state, webhook_href=receiver.href(), event="status")
    receiver.answer = lambda told: Reply(500 if told.number < 2 else 204)
    change(state, task.id, "status")
    state.deliverer.run()
    assert views(state, dead=True)
    change(state, task.id, "status")
    state.deliverer.run()
    assert [call.sequence for call in receiver.calls] == [1, 1, 2]
    assert views(state, dead=True) == []


def _subscribe_as_others_do(state: TaskState, task: ProcessingTask, webhook_href: str) -> None:
    with state.database.transaction() as connection:
        connection.execute(
            insert(subscription_table).values(task_id=task.id, webhook_href=webhook_href, task_href=TASK)
        )


@pytest.mark.parametrize(
    "href",
    [
        "http://10.0.0.1/hook",
        "http://169.254.169.254/latest",
        "ftp://127.0.0.1/x",
        "http://user:word@127.0.0.1/",
        "http://[",
        "hook",
        "",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1/ a\nb",
    ],
)
def test_target_that_is_refused_is_dead_with_the_reason_and_stops_nobody(
    state: TaskState, receiver: WebhookReceiver, href: str
) -> None:
    task = saved_task(state)
    _subscribe_as_others_do(state, task, href)
    _subscribe_as_others_do(state, task, receiver.href())
    change(state, task.id, "status")
    state.deliverer.run()
    assert len(receiver.calls) == 1
    (dead,) = views(state, dead=True)
    assert str(dead.answer).startswith("refused: ")
    assert dead.attempts == 1


# Who is told


def test_subscription_is_read_at_the_call(state: TaskState, receiver: WebhookReceiver) -> None:
    task = subscribed_task(state, webhook_href=receiver.href())
    change(state, task.id, "status", "steps", "details")
    assert state.unsubscribe(task, receiver.href()) == 1
    state.deliverer.run()
    assert receiver.calls == []
    assert not _is_owed(state)


def test_unsubscribed_in_back_off_hears_nothing_more(state: TaskState, receiver: WebhookReceiver) -> None:
    task = subscribed_task(state, webhook_href=receiver.href())
    receiver.answer = lambda told: Reply(500)
    change(state, task.id, "status", "details")
    state.deliverer.run()
    heard = len(receiver.calls)
    state.unsubscribe(task, receiver.href())
    let_time_pass(state, 100)
    tell_until(state, "all is forgotten", lambda: not _is_owed(state))
    assert len(receiver.calls) == heard
    with state.database.reading() as connection:
        assert connection.execute(select(delivery_table)).first() is None


def test_unsubscribed_during_a_call_hears_nothing_more(state: TaskState, receiver: WebhookReceiver) -> None:
    task = subscribed_task(state, webhook_href=receiver.href())
    change(state, task.id, "status")
    with _slow_first_calls(receiver) as (came, go_on):
        run = _in_thread(state)
        assert came.wait(5)
        change(state, task.id, "status", "details")
        assert state.unsubscribe(task, receiver.href()) == 1
        change(state, task.id, "status", "details")
        go_on.set()
        run.join()
    state.deliverer.run()
    assert len(receiver.calls) == 1
    assert not _is_owed(state)


def test_deleted_task_is_told_to_nobody(state: TaskState, receiver: WebhookReceiver) -> None:
    task = saved_task(state)
    _subscribe_as_others_do(state, task, receiver.href())
    change(state, task.id, "status")
    with state.database.transaction() as connection:
        connection.execute(delete(subscription_table).where(subscription_table.c.task_id == task.id))
        connection.execute(delete(task_table).where(task_table.c.id == task.id))
    state.deliverer.run()
    assert receiver.calls == []
    assert not _is_owed(state)


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("by_us", [True, False])
def test_id_that_is_given_out_again_inherits_nothing(
    make_state: MakeState, receiver: WebhookReceiver, by_us: bool
) -> None:
    state = make_state(wakes=False, webhook_retry_schedule=LONG)
    first = subscribed_task(state, webhook_href=receiver.href("/first"))
    other = saved_task(state)
    receiver.answer = lambda told: Reply(500 if told.path == "/first" else 204)
    change(state, first.id, "status")
    with _slow_first_calls(receiver) as (came, go_on):
        run = _in_thread(state)
        assert came.wait(5)
        change(state, first.id, "status", "details")
        with state.database.transaction() as connection:
            # As the runner deletes: nobody tells us.
            ids = list(connection.execute(select(subscription_table.c.id)).scalars())
            connection.execute(delete(subscription_table))
        if by_us:
            state.subscribe(other, receiver.href("/second"), TASK)
        else:
            _subscribe_as_others_do(state, other, receiver.href("/second"))
        with state.database.reading() as connection:
            assert list(connection.execute(select(subscription_table.c.id)).scalars()) == ids
        go_on.set()
        run.join()
    state.deliverer.run()
    assert receiver.told(path="/second") == []
    change(state, other.id, "details")
    state.deliverer.run()
    (told,) = receiver.told(path="/second")
    assert (told.event, told.sequence, told.message["data"]["task_id"]) == ("details", 1, other.id)


# A process that does not come back


def _die_before_settling(state: TaskState) -> None:
    """Let the deliverer of a state lose the results of its calls, as one that is killed does."""
    state.deliverer._settle = lambda call, verdict: None  # type: ignore[method-assign]


@pytest.mark.parametrize("changed", [False, True])
def test_call_of_a_process_that_died_is_made_again(
    make_state: MakeState, receiver: WebhookReceiver, changed: bool
) -> None:
    dying, living = make_state(wakes=False), make_state(wakes=False)
    task = subscribed_task(dying, webhook_href=receiver.href(), event="status")
    _die_before_settling(dying)
    change(dying, task.id, "status")
    dying.deliverer.run()
    living.deliverer.run()
    assert [view.state for view in views(living)] == ["calling"]
    if changed:
        change(living, task.id, "status")
        living.deliverer.run()
    assert len(receiver.calls) == 1
    let_time_pass(living, living.deliverer.lease_seconds)
    living.deliverer.run()
    first, second = receiver.calls
    if changed:
        assert (second.sequence, second.message_id != first.message_id) == (2, True)
    else:
        assert (second.sequence, second.message_id) == (1, first.message_id)
    assert [view.state for view in views(living)] == ["told"]


def test_late_result_of_a_lost_lease_changes_nothing(make_state: MakeState, receiver: WebhookReceiver) -> None:
    late, other = make_state(wakes=False), make_state(wakes=False)
    task = subscribed_task(late, webhook_href=receiver.href(), event="status")
    receiver.answer = lambda told: Reply(410 if told.number == 0 else 204)
    kept: list[Any] = []
    settle = late.deliverer._settle
    late.deliverer._settle = lambda call, verdict: kept.append((call, verdict))  # type: ignore[method-assign]
    change(late, task.id, "status")
    late.deliverer.run()
    let_time_pass(other, other.deliverer.lease_seconds)
    other.deliverer.run()
    ((call, verdict),) = kept
    assert verdict.kind == "gone"
    settle(call, verdict)
    assert len(TaskUpdateSubscription.get_by_task_and_event(task)) == 1
    assert [view.state for view in views(other)] == ["told"]


@pytest.mark.databases("sqlite")
def test_answer_that_comes_while_another_holds_the_write_lock_for_seconds_is_noted(
    state: TaskState, receiver: WebhookReceiver
) -> None:
    under_way, locked = threading.Event(), threading.Event()

    def answer(told: Told) -> Reply:
        under_way.set()
        locked.wait(20)
        return Reply()

    def hold() -> None:
        under_way.wait(20)
        with state.database.transaction():
            locked.set()
            time.sleep(4)

    receiver.answer = answer
    task = subscribed_task(state, webhook_href=receiver.href(), event="details")
    change(state, task.id, "details")
    holder = threading.Thread(target=hold)
    holder.start()
    assert state.deliverer.run() == 1
    holder.join()
    assert len(receiver.calls) == 1
    assert [view.state for view in views(state, task_id=task.id)] == ["told"]


def test_answers_of_a_run_that_the_database_fails_are_noted(
    state: TaskState, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, failed = webhooks_claim.claim, threading.Event()

    def fail_at_the_second(*arguments: Any, **options: Any) -> Any:
        if claimed:
            # Before more of them are under way than a host gets at once, since nothing is claimed then.
            wait_until("the first call has arrived", lambda: receiver.calls)
            failed.set()
            raise OperationalError("SELECT 1", {}, Exception("no more of it"))
        call = claim(*arguments, **options)
        if call is not None:
            claimed.append(call)
        return call

    def answer(told: Told) -> Reply:
        failed.wait(20)
        return Reply()

    receiver.answer = answer
    claimed: list[webhooks_call.Call] = []
    monkeypatch.setattr(webhooks_claim, "claim", fail_at_the_second)
    tasks = [subscribed_task(state, webhook_href=receiver.href(), event="details") for _ in range(12)]
    for task in tasks:
        change(state, task.id, "details")
    with pytest.raises(OperationalError, match="no more of it"):
        state.deliverer.run()
    assert len(claimed) == len(receiver.calls) < len(tasks)
    monkeypatch.undo()
    told = {view.task_id for view in views(state) if view.state == "told"}
    assert told == {call.task_id for call in claimed}
