"""A release that knows one event more: it is one member of `TaskEvent`, and older subscriptions go on being called."""

from __future__ import annotations

import pytest

from qhana_taskstate import EventError, TaskState
from qhana_taskstate.events import TaskEvent
from qhana_taskstate.testing.receiver import Reply, WebhookReceiver
from tests.parts.webhooks.conftest import MakeState
from tests.parts.webhooks.owed import NOBODY, TASK, saved_task, subscribed_task
from tests.parts.webhooks.telling import change, delivery, let_time_pass, views


def learn_another_event(monkeypatch: pytest.MonkeyPatch) -> TaskEvent:
    """Give `TaskEvent` the member `OUTPUTS`, as the next release might."""
    event = str.__new__(TaskEvent, "outputs")
    event._name_, event._value_ = "OUTPUTS", "outputs"
    monkeypatch.setattr(TaskEvent, "_member_names_", [*TaskEvent._member_names_, "OUTPUTS"])
    monkeypatch.setitem(TaskEvent._member_map_, "OUTPUTS", event)
    monkeypatch.setitem(TaskEvent._value2member_map_, "outputs", event)
    assert event in set(TaskEvent)
    return event


def test_older_subscription_in_back_off_is_called_again(
    make_state: MakeState, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = make_state(wakes=False, webhook_retry_schedule=[1000.0])
    task = subscribed_task(state, webhook_href=receiver.href())
    receiver.answer = lambda _: Reply(503)
    change(state, task.id, "details")
    state.deliverer.run()
    receiver.answer = lambda _: Reply()
    assert delivery(state).attempts == 1 == len(receiver.calls)

    learn_another_event(monkeypatch)
    let_time_pass(state, 2000)

    assert state.deliverer.run() == 1
    assert [call.event for call in receiver.calls] == ["details", "details"]


def test_older_subscription_is_called_of_old_events_and_of_the_new_one(
    state: TaskState, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = subscribed_task(state, webhook_href=receiver.href())
    change(state, task.id, "details")
    state.deliverer.run()
    before = len(views(state))

    event = learn_another_event(monkeypatch)
    let_time_pass(state, 60)
    change(state, task.id, "details", event)
    state.deliverer.run()

    assert sorted(call.event for call in receiver.calls) == ["details", "details", "outputs"]
    assert delivery(state, event).sequence == 1
    assert len(views(state)) == before + 1


def test_another_event_may_be_chosen_and_is_named_in_the_error(
    state: TaskState, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = saved_task(state)
    with pytest.raises(EventError, match=r"^'outputs' is no event; use 'status', 'steps' or 'details', or None for "):
        state.subscribe(task, NOBODY, TASK, event="outputs")

    learn_another_event(monkeypatch)

    assert state.subscribe(task, NOBODY, TASK, event="outputs").event_type == "outputs"
    with pytest.raises(EventError, match="'status', 'steps', 'details' or 'outputs', or None"):
        state.subscribe(task, NOBODY, TASK, event="ended")
