"""Subscribing and its opposite, from outside: what is written, and what is said of bad input."""

from __future__ import annotations

from typing import Any

import pytest

from qhana_taskstate import (
    ArgumentsError,
    EventError,
    ProcessingTask,
    SettingsError,
    TaskNotFoundError,
    TaskState,
    TaskStateError,
    TaskUpdateSubscription,
    TextTooLongError,
    WebhookTargetError,
)
from tests.apps.jobs import say
from tests.contract.conftest import MakeState, count_rows

pytestmark = pytest.mark.versions

HOOK = "https://me.example/hook?step=3"
TASK = "https://plugin.example/tasks/7/?a=b c"


def saved() -> ProcessingTask:
    """Save a task."""
    task = ProcessingTask("job")
    task.save(commit=True)
    return task


def events_of(task: ProcessingTask, href: str = HOOK) -> list[str | None]:
    """Return the events that a webhook is subscribed to."""
    return [known.event_type for known in TaskUpdateSubscription.get_by_task_and_subscriber(task, href)]


def refuse(state: TaskState, error: type[Exception], **arguments: Any) -> str:
    """Check that neither `subscribe` nor `start` takes the arguments, and that neither writes anything."""
    task = saved()
    before = count_rows(state)
    given = {"webhook_href": HOOK, "task_href": TASK, "event": None, **arguments}
    with pytest.raises(error) as first:
        state.subscribe(task, **given)
    if given["webhook_href"] is not None:
        with pytest.raises(error) as second:
            state.start(say.s("x"), **given)
        assert str(second.value) == str(first.value)
    assert isinstance(first.value, TaskStateError)
    assert count_rows(state) == before
    # The session is still good for something.
    assert state.subscribe(task, HOOK, TASK).id
    return str(first.value)


@pytest.mark.mariadb
def test_subscription_is_committed_to_the_letter_and_twice_is_once(queued: TaskState) -> None:
    task = saved()

    first = queued.subscribe(task, HOOK, TASK)
    assert queued.subscribe(str(task.id), HOOK, "https://other.example/").id == first.id
    queued.subscribe(task.id, HOOK, TASK, "status")
    queued.subscribe(task, HOOK, TASK, event="status")

    queued.session.rollback()
    assert events_of(task) == [None, "status"]
    found = TaskUpdateSubscription.get_by_task_and_subscriber(task, HOOK, event=None)
    assert [(known.webhook_href, known.task_href) for known in found] == [(HOOK, TASK)]


@pytest.mark.mariadb
def test_unsubscribing_removes_one_event_or_all_of_the_webhook(queued: TaskState) -> None:
    task, other = saved(), saved()
    for event in (None, "status", "steps"):
        queued.subscribe(task, HOOK, TASK, event)
    queued.subscribe(task, "https://me.example/other", TASK)
    queued.subscribe(other, HOOK, TASK)

    assert queued.unsubscribe(task, HOOK, "steps") == 1
    assert queued.unsubscribe(task, HOOK, "steps") == 0
    assert events_of(task) == [None, "status"]
    assert queued.unsubscribe(task, HOOK, None) == 1
    assert events_of(task) == ["status"]
    queued.subscribe(task, HOOK, TASK)
    assert queued.unsubscribe(task, HOOK) == 2
    assert (events_of(task), events_of(task, "https://me.example/other"), events_of(other)) == ([], [None], [None])


# Refused before anything is asked of the database.
@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    "href",
    [
        "",
        "  ",
        "me.example/hook",
        "/hook",
        "ftp://me.example/",
        "javascript:alert(1)",
        "http://",
        "http:///hook",
        "http://joe:hunter2@me.example/",
        "http://me.example:0/",
        "http://me.example:99999/",
        "http://me.example:port/",
        "http://me.example/a b",
        "http://me.example/\x00",
        "http://me.example/\udc80",
        "http://me.example/\r\nX: y",
        "http://[::1",
        "http://-/",
        "http://127.0.0.1/",
        "http://localhost/",
        "http://10.1.2.3/",
        "http://169.254.169.254/latest/",
        "http://[::ffff:127.0.0.1]/",
        "http://0x7f000001/",
        "http://2130706433/",
        5,
        b"https://me.example/",
        ["https://me.example/"],
        object(),
    ],
)
def test_unusable_url_is_refused_before_anything_is_written(queued: TaskState, href: Any) -> None:
    told = refuse(queued, WebhookTargetError, webhook_href=href)
    assert "webhook" in told
    assert "hunter2" not in told


def test_missing_url_is_refused(queued: TaskState) -> None:
    refuse(queued, WebhookTargetError, webhook_href=None)


def test_url_that_its_column_cannot_hold_is_refused(queued: TaskState) -> None:
    long = "https://me.example/" + "x" * 500
    assert "500" in refuse(queued, TextTooLongError, webhook_href=long)
    assert "500" in refuse(queued, TextTooLongError, task_href=long)


# Refused before anything is asked of the database.
@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    "event", ["", "Status", "status ", "everything", 5, True, b"status", ["status"], ..., object()]
)
def test_event_that_is_none_of_the_three_is_refused(queued: TaskState, event: Any) -> None:
    assert "'status', 'steps' or 'details'" in refuse(queued, EventError, event=event)
    if event is not ...:
        with pytest.raises(EventError):
            queued.unsubscribe(saved(), HOOK, event)


# Refused before anything is asked of the database.
@pytest.mark.databases("postgresql")
@pytest.mark.parametrize("href", ["", "  ", 5, b"https://me.example/", ["x"], "a\x00b", "a\udc80"])
def test_task_href_that_no_receiver_could_compare_is_refused(queued: TaskState, href: Any) -> None:
    assert "task_href" in refuse(queued, ArgumentsError, task_href=href)


def test_source_is_needed_unless_the_public_url_makes_it(queued: TaskState, make_state: MakeState) -> None:
    assert "taskstate_public_url" in refuse(queued, SettingsError, task_href=None)

    state = make_state(public_url="https://plugin.example/base/")
    task = saved()
    assert state.subscribe(task, HOOK).task_href == f"https://plugin.example/base/tasks/{task.id}/"


@pytest.mark.parametrize("task", [None, "seven", 10**6, -1, 2**70, 1.5, True])
def test_task_that_is_not_there_is_named(queued: TaskState, task: Any) -> None:
    with pytest.raises(TaskNotFoundError):
        queued.subscribe(task, HOOK, TASK)


def test_unsaved_task_is_not_there_yet(queued: TaskState) -> None:
    with pytest.raises(TaskNotFoundError):
        queued.subscribe(ProcessingTask("unsaved"), HOOK, TASK)
    with pytest.raises(TaskNotFoundError):
        queued.unsubscribe(ProcessingTask("unsaved"), HOOK)


# Refused before anything is asked of the database.
@pytest.mark.databases("postgresql")
@pytest.mark.parametrize("href", [None, 5, ["x"], b"x", "", "a\x00b", "a\udc80"])
def test_unsubscribing_what_is_no_url_is_told(queued: TaskState, href: Any) -> None:
    task = saved()
    with pytest.raises(WebhookTargetError):
        queued.unsubscribe(task, href)
    assert queued.unsubscribe(task, HOOK) == 0


def test_webhook_that_is_refused_by_now_can_still_be_unsubscribed(queued: TaskState, make_state: MakeState) -> None:
    task = saved()
    make_state(webhook_allowed_networks=["10.0.0.0/8"]).subscribe(task, "http://10.1.2.3/", TASK)
    queued.app.set_current()

    with pytest.raises(WebhookTargetError):
        queued.subscribe(task, "http://10.1.2.3/", TASK, "status")
    assert queued.unsubscribe(task, "http://10.1.2.3/") == 1


def test_rules_of_a_start_with_a_webhook_are_those_of_subscribe(queued: TaskState) -> None:
    task = queued.start(say.s("x"), webhook_href=HOOK, task_href=TASK, event="steps")
    assert events_of(task) == ["steps"]
    queued.start(say.s("y"), task=task, webhook_href=HOOK, task_href=TASK, event="steps")
    assert events_of(task) == ["steps"]
    with pytest.raises(SettingsError, match="webhook_href"):
        queued.start(say.s("x"), event="status")
    with pytest.raises(SettingsError, match="webhook_href"):
        queued.start(say.s("x"), task_href=TASK)
