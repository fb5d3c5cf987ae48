"""Options of Celery far beyond what is usual are recorded, and so are odd ids, names and reports."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import select

from qhana_taskstate import ArgumentsError, TaskState, TextCharacterError, add_log, plugin_task, report_progress
from qhana_taskstate.clock import now
from qhana_taskstate.database.tables.executions import execution_table
from tests.apps.jobs import say
from tests.contract.conftest import MakeState

BAD = ("a\0b", "a\ud800")


@plugin_task(name="contract.for_ever")
def for_ever() -> str:
    """End well; its limit of retries is set by the test."""
    return "done"


@plugin_task(name="contract.odd_reports")
def odd_reports(bad: str) -> str:
    """Report what no column can hold."""
    report_progress(1, target=4, unit=bad)
    add_log(bad)
    return bad


def executions(state: TaskState) -> list[Any]:
    with state.database.reading() as connection:
        return list(connection.execute(select(execution_table)).all())


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        (3, 3),
        (None, None),
        (2**31 - 2, 2**31 - 2),
        (2**31, None),
        (sys.maxsize, None),
        (10**30, None),
        (float("inf"), None),
        (-1, -1),
        (0, 0),
    ],
)
def test_limits_of_retries_are_recorded(
    eager: TaskState, monkeypatch: pytest.MonkeyPatch, given: Any, stored: int | None
) -> None:
    task = eager.app.tasks["contract.for_ever"]
    monkeypatch.setattr(task, "max_retries", given)

    assert eager.start(for_ever.s()).status == "SUCCESS"

    (row,) = executions(eager)
    assert (row.state, row.max_retries, row.worker is None or bool(row.worker)) == ("SUCCESS", stored, True)
    assert row.started_at is not None and row.pid is not None


@pytest.mark.parametrize("retries", [5, 2**31, sys.maxsize])
def test_a_number_of_retries_beyond_the_column_is_recorded(eager: TaskState, retries: int) -> None:
    assert eager.start(for_ever.s(), retries=retries).status == "SUCCESS"


@pytest.mark.parametrize("bad", BAD, ids=ascii)
def test_reports_that_no_column_holds_cost_nothing_else(eager: TaskState, bad: str) -> None:
    task = eager.start(odd_reports.s(bad))

    assert (task.status, task.progress_value) == ("SUCCESS", 4)
    assert task.progress_unit == task.task_log.splitlines()[0] and len(task.task_log.splitlines()) == 2
    assert "\0" not in task.task_log and "FactLost" not in task.task_log


@pytest.mark.parametrize(
    "options",
    [
        {"countdown": 40 * 365 * 86400},
        {"countdown": 7000 * 365.25 * 86400},
        {"countdown": 0.001},
        {"eta": datetime.max},  # noqa: DTZ901  (naive ones exist)
        {"eta": datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)},
        {"eta": datetime(9999, 12, 31, 20, tzinfo=timezone(timedelta(hours=-12)))},
        {"eta": datetime(1970, 1, 1, tzinfo=UTC)},
        {"eta": "9999-12-31T23:59:59+00:00"},
        {"expires": 7000 * 365.25 * 86400},
        {"expires": datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)},
        {"priority": 0},
        {"priority": 255},
        {"priority": -1},
        {"priority": 9},
    ],
    ids=str,
)
def test_options_are_recorded(queued: TaskState, options: dict[str, Any]) -> None:
    for task in (queued.start(say.s("x"), **options), queued.find(say.apply_async(("x",), **options).id)):
        assert task is not None and task.status == "PENDING"

    for row in executions(queued):
        assert row.deadline_at > now() + timedelta(hours=23) or "expires" in options
        assert ("eta" in options or "countdown" in options) == (row.eta is not None)


@pytest.mark.parametrize("serializer", ["json", "pickle", "yaml", "msgpack"])
def test_every_serializer_is_recorded(make_state: MakeState, serializer: str) -> None:
    state = make_state()
    state.app.conf.accept_content = [serializer]
    for task in (
        state.start(say.s("x"), serializer=serializer),
        state.find(say.apply_async(("x",), serializer=serializer).id),
    ):
        assert task is not None and task.status == "PENDING"
    assert len(executions(state)) == 2


@pytest.mark.parametrize("bad", BAD, ids=ascii)
def test_an_odd_celery_id_is_refused_for_plugin_tasks_and_recorded_otherwise(queued: TaskState, bad: str) -> None:
    for publish in (queued.start, lambda work, task_id: work.apply_async(task_id=task_id)):
        with pytest.raises(TextCharacterError, match="task_id holds") as caught:
            publish(say.s("x"), task_id=bad)
        assert isinstance(caught.value, ArgumentsError)
    assert executions(queued) == []

    queued.app.send_task(say.name, ["x"], task_id=bad)
    assert len(executions(queued)) == 1 and queued.find(bad) is not None


def test_an_odd_queue_is_recorded(queued: TaskState) -> None:
    for queue in (*BAD, "q" * 300):
        assert queued.find(say.apply_async(("x",), queue=queue).id) is not None
