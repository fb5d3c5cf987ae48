"""What a task is said to be doing, from facts."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from qhana_taskstate.clock import now
from qhana_taskstate.reading.rows.activity import Facts, OpenMessages, activity_of

MOMENT = now()


def facts(*messages: OpenMessages, **others: Any) -> Facts:
    """Make the facts of a pending task."""
    known = {"status": "PENDING", "finished": False, "tracked": True, "had_work": True, **others}
    return Facts(messages=messages, **known)


def queued(**others: Any) -> OpenMessages:
    """Make a queued message."""
    return OpenMessages(state="QUEUED", **{"queue": "celery", **others})


def running(seconds_ago: float = 0, **others: Any) -> OpenMessages:
    """Make a running message that was heard of so many seconds ago."""
    heard = MOMENT - timedelta(seconds=seconds_ago)
    return OpenMessages(state="RUNNING", heartbeat_at=heard, **{"worker": "w@host", **others})


def said(given: Facts) -> str:
    """Say it."""
    return activity_of(given, MOMENT, heartbeat_seconds=10).text


def later(seconds: float) -> Any:
    """Return a moment."""
    return MOMENT + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("given", "word", "text"),
    [
        (facts(queued()), "queued", "queued in celery"),
        (facts(queued(queue=None)), "queued", "queued"),
        (facts(queued(queue="b"), queued(queue="a")), "queued", "queued in a, b"),
        (facts(queued(retried=True)), "queued", "queued in celery, to be tried again"),
        (facts(queued(handed_back=True)), "queued", "queued in celery, to be delivered again"),
        (facts(queued(due=later(-5))), "queued", "queued in celery"),
        (facts(queued(due=later(93))), "delayed", "starts in 93 s"),
        (facts(queued(due=later(3 * 3600 + 5))), "delayed", "starts in 3 h"),
        (facts(queued(due=later(10), retried=True)), "retrying", "tried again in 10 s"),
        (facts(queued(due=later(93)), queued(due=later(10), retried=True)), "retrying", "tried again in 10 s"),
        (facts(queued(due=later(93)), queued()), "queued", "queued in celery"),
        (facts(running()), "running", "running on w@host"),
        (facts(running(worker=None)), "running", "running"),
        (facts(running(), queued()), "running", "running on w@host"),
        (facts(running(19)), "running", "running on w@host"),
        (facts(running(40)), "silent", "no sign of life for 40 s from w@host"),
        (facts(running(40), running(worker="x@y")), "running", "running on x@y; no sign of life for 40 s from w@host"),
        (facts(running(), step_id="k"), "running", "running on w@host"),
        (facts(step_id="k"), "waiting", "waits for input at step k"),
        (facts(step_id="k", open_ended=True, parked=True), "waiting", "waits for input at step k"),
        (facts(open_ended=True), "open-ended", "open-ended: stays open until it is told to finish"),
        (facts(parked=True), "parked", "parked: goes on when its next work is started"),
        (facts(submitting=True, open_ended=True), "submitting", "its work is being submitted"),
        (facts(had_work=False), "idle", "no work was started for it yet"),
        (facts(tracked=False), "untracked", "nobody gave it to the recorder"),
        (facts(finished=True, status="SUCCESS"), "ended", "ended"),
        (facts(finished=True, status="FAILURE"), "ended", "failed"),
        (facts(finished=True, status="ERROR", cause="work: ValueError: no"), "ended", "work: ValueError: no"),
        (facts(finished=True, status="WEIRD"), "ended", "ended as WEIRD"),
    ],
)
def test_what_a_task_is_doing(given: Facts, word: str, text: str) -> None:
    activity = activity_of(given, MOMENT, heartbeat_seconds=10)

    assert (activity.word, activity.text) == (word, text)


def test_many_workers_are_counted() -> None:
    workers = [running(worker=f"{letter}@host") for letter in "edcba"]

    assert said(facts(*workers)) == "running on a@host, b@host, c@host and 2 more"


def test_why_queued_work_does_not_begin_is_said() -> None:
    activity = activity_of(facts(queued(queue="a", published_at=later(-9)), queued(due=later(-3))), MOMENT, 10)

    assert activity.waiting_since == later(-9)
    troubled = activity.troubled("nobody consumes queue a")
    assert (troubled.text, troubled.trouble) == (
        "queued in a, celery; nobody consumes queue a",
        "nobody consumes queue a",
    )
    assert activity.troubled("") == activity
