"""The tree of executions, and the words for times and texts."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qhana_taskstate.cli.text import tree
from qhana_taskstate.reading import tree as reading_tree
from qhana_taskstate.reading import words as reading_words
from qhana_taskstate.reading.rows.views import ExecutionView, ProgressView
from qhana_taskstate.states import ExecutionState

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)


def execution(celery_id: str, **facts: Any) -> ExecutionView:
    """Make an execution that ran for two seconds after one of waiting, unless the facts say something else."""
    view = ExecutionView(
        celery_id=celery_id,
        retries=0,
        nesting=0,
        name=f"name-{celery_id}",
        state=ExecutionState.SUCCESS,
        parent_id=None,
        queue="celery",
        published_at=NOON,
        eta=None,
        started_at=NOON + timedelta(seconds=1),
        closed_at=NOON + timedelta(seconds=3),
        heartbeat_at=None,
        worker="celery@host",
        host="host",
        pid=7,
        pid_started=None,
        acks_late=False,
        max_retries=3,
        deliveries=1,
        losses=0,
        deadline_at=None,
        error_type=None,
        error=None,
        traceback=None,
        progress=None,
        trace_id=None,
        waiting_seconds=1.0,
        run_seconds=2.0,
    )
    return replace(view, **facts)


def test_an_execution_shows_name_state_worker_waiting_and_run_time() -> None:
    assert tree.lines([execution("a", name="add")]) == ["└─ add  SUCCESS  on celery@host  waited 1.00 s  ran 2.00 s"]


def test_a_message_stands_below_the_one_that_published_it() -> None:
    shown = tree.lines(
        [
            execution("a"),
            execution("b", parent_id="a"),
            execution("c", parent_id="b"),
            execution("d", parent_id="a"),
            execution("e"),
        ]
    )

    assert [line.split("  SUCCESS")[0] for line in shown] == [
        "├─ name-a",
        "│  ├─ name-b",
        "│  │  └─ name-c",
        "│  └─ name-d",
        "└─ name-e",
    ]


def test_a_message_of_an_unknown_publisher_is_a_root() -> None:
    assert [message.last.celery_id for message in reading_tree.tree([execution("b", parent_id="gone")])] == ["b"]


def test_attempts_of_one_message_stand_together_with_the_reason_and_the_time_of_the_next() -> None:
    failed = execution(
        "a", name="fetch", state=ExecutionState.RETRY, max_retries=4, error_type="ValueError", error="no luck"
    )
    later = NOON + timedelta(minutes=5)
    attempts = [
        failed,
        replace(failed, retries=1, eta=later),
        replace(
            failed,
            retries=2,
            eta=later + timedelta(minutes=5),
            state=ExecutionState.SUCCESS,
            error_type=None,
            error=None,
        ),
    ]

    shown = tree.lines(attempts)

    assert shown[0] == "└─ fetch  SUCCESS  3 executions"
    assert "· attempt 1 of 5 failed: ValueError: no luck, next at 2026-03-04 12:05:00 UTC  on celery@host" in shown[1]
    assert "· attempt 2 of 5 failed: ValueError: no luck, next at 2026-03-04 12:10:00 UTC  on celery@host" in shown[2]
    assert "· attempt 3 of 5 SUCCESS" in shown[3]
    assert len(shown) == 4


def test_an_attempt_that_waits_says_from_when_on_it_may_begin() -> None:
    failed = execution("a", state=ExecutionState.RETRY, max_retries=None, error_type="ValueError", error="no")
    waiting = execution(
        "a",
        state=ExecutionState.QUEUED,
        retries=1,
        eta=NOON + timedelta(hours=1),
        started_at=None,
        closed_at=None,
        worker=None,
        deliveries=0,
        max_retries=None,
        run_seconds=None,
        waiting_seconds=0.0,
    )

    last = tree.lines([failed, waiting])[-1]

    assert last.strip() == "· attempt 2 QUEUED  waiting 0.00 s  not before 2026-03-04 13:00:00 UTC"


def test_children_of_a_retried_message_stand_below_its_attempts() -> None:
    first = execution("a", state=ExecutionState.RETRY)

    shown = tree.lines([first, replace(first, retries=1, state=ExecutionState.SUCCESS), execution("b", parent_id="a")])

    assert [line[:6] for line in shown] == ["└─ nam", "   │  ", "   │  ", "   └─ "]


def test_a_replacement_with_the_same_id_is_no_circle() -> None:
    replaced = execution("a", state=ExecutionState.IGNORED)
    replacement = execution("a", name="other", nesting=1, parent_id="a")

    shown = tree.lines([replaced, replacement])

    assert shown[0] == "└─ name-a  SUCCESS  2 executions"
    assert "IGNORED  replaced" in shown[1]
    assert "· other  SUCCESS" in shown[2]


def test_a_replacement_that_fails_shows_its_error() -> None:
    replaced = execution("a", state=ExecutionState.IGNORED)
    replacement = execution("a", nesting=1, state=ExecutionState.FAILURE, error_type="KeyError", error="'x'")

    assert tree.lines([replaced, replacement])[-1].strip() == "KeyError: 'x'"


def test_an_error_of_many_lines_is_shown_whole() -> None:
    shown = tree.lines([execution("a", state=ExecutionState.FAILURE, error_type="ValueError", error="one\ntwo")])

    assert [line.strip() for line in shown[1:]] == ["ValueError: one", "two"]


def test_tracebacks_are_shown_only_when_asked_for() -> None:
    failed = execution(
        "a", state=ExecutionState.FAILURE, error_type="ValueError", error="bad", traceback="Traceback\n  File x\n"
    )

    assert not any("File x" in line for line in tree.lines([failed]))
    assert [line.strip() for line in tree.lines([failed], tracebacks=True)[1:]] == [
        "ValueError: bad",
        "Traceback",
        "File x",
    ]


def test_many_leaves_that_are_alike_are_summed_up_unless_all_are_wanted() -> None:
    group = [execution("p")] + [
        execution(f"m{number}", name="member", parent_id="p", run_seconds=float(number)) for number in range(1000)
    ]
    group[500] = replace(group[500], state=ExecutionState.FAILURE, error_type="ValueError", error="bad")

    shown = tree.lines(group)

    assert len(shown) == 1 + 3 + 2 + 3
    assert "… and 497 more: member SUCCESS, ran 2.00 s to 8 min 18 s" in shown[3]
    assert "FAILURE" in shown[4]
    assert len(tree.lines(group, full=True)) == 1002


def test_a_chain_of_thousands_is_rendered() -> None:
    chain = [execution("0")] + [execution(str(n), parent_id=str(n - 1)) for n in range(1, 5000)]

    shown = tree.lines(chain)

    assert len(shown) == 5000
    assert "[4999] name-4999" in shown[-1]
    assert max(map(len, shown)) < 150


def test_a_running_execution_shows_its_progress_and_how_often_it_was_delivered() -> None:
    running = execution(
        "a",
        state=ExecutionState.RUNNING,
        closed_at=None,
        deliveries=2,
        losses=1,
        progress=ProgressView(value=60, start=0, target=100, unit="%"),
    )

    assert tree.lines([running])[0].endswith("running 2.00 s  60 of 100 %  delivered 2 times  lost its worker 1 time")


def test_names_and_errors_cannot_steer_the_terminal() -> None:
    nasty = execution(
        "a", name="x\x1b[2J", state=ExecutionState.FAILURE, error_type="E", error="\u202egnp.exe\rhidden", worker="w\n"
    )

    assert "".join(tree.lines([nasty])).isprintable()


IDS = st.sampled_from("abcdef")


@given(
    st.lists(
        st.builds(
            lambda celery_id, parent_id, retries, nesting: execution(
                celery_id, parent_id=parent_id, retries=retries, nesting=nesting
            ),
            IDS,
            st.none() | IDS,
            st.integers(0, 2),
            st.integers(0, 2),
        ),
        unique_by=lambda view: (view.celery_id, view.retries, view.nesting),
        max_size=12,
    )
)
def test_each_execution_is_in_the_tree_once_whatever_the_parents_say(executions: list[ExecutionView]) -> None:
    seen: list[ExecutionView] = []
    stack = reading_tree.tree(executions)
    while stack:
        message = stack.pop()
        seen += message.attempts
        stack += message.children

    assert sorted(map(repr, seen)) == sorted(map(repr, executions))
    assert tree.lines(executions, full=True, tracebacks=True) or not executions


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0.00 s"),
        (9.994, "9.99 s"),
        (12.34, "12.3 s"),
        (61, "1 min 1 s"),
        (3600 * 3 + 59, "3 h 0 min"),
        (86400 * 3 + 7200, "3 d 2 h"),
    ],
)
def test_time_spans_are_said_as_people_do(seconds: float, words: str) -> None:
    assert reading_words.duration(seconds) == words


def test_moments_are_said_in_the_time_zone_of_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert reading_words.clock(datetime.fromisoformat("2026-03-04T01:30:00+02:00")) == "2026-03-04 08:30:00 JST"
        assert reading_words.brief_clock(NOON, NOON) == "21:00:00"
        assert reading_words.brief_clock(NOON, NOON + timedelta(days=1)) == "2026-03-04 21:00"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_progress_is_said_without_needless_digits() -> None:
    assert reading_words.progress(60.0, 100.0, "%") == "60 of 100 %"
    assert reading_words.progress(66.666, 100.0, "") == "66.67 of 100"


def test_a_first_line_tells_that_there_are_more() -> None:
    assert reading_words.first_line("one\ntwo") == "one …"
    assert reading_words.first_line(" one \n\n") == "one"
