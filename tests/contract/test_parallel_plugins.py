"""Threads, coroutines and processes that plugin tasks start."""

from __future__ import annotations

import asyncio
import logging
import threading
from functools import partial

import pytest

from qhana_taskstate import ProcessingTask, TaskState, add_log, report_progress
from qhana_taskstate.context import report_owner
from tests.apps import parallel

pytestmark = pytest.mark.versions


@pytest.fixture(autouse=True)
def _nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_owner, "_told", set())


def _get(found: list[int]) -> ProcessingTask:
    task = ProcessingTask.get_by_id(found[0])
    assert task is not None
    return task


def test_threads_of_the_one_execution_report_for_it(eager: TaskState) -> None:
    task = eager.start(parallel.report_from_threads.s())

    assert (task.progress_value, task.progress_target, task.progress_unit) == (7, 10, "parts")
    assert task.task_log.splitlines()[:2] == ["part 3", "part 7"]


@pytest.mark.parametrize("bound", [False, True])
def test_thread_beside_two_executions_reports_only_if_bound(
    eager: TaskState, caplog: pytest.LogCaptureFixture, bound: bool
) -> None:
    started = [parallel.start_in_thread(eager, parallel.report_beside_another.s(bound)) for _ in range(2)]
    for thread, _ in started:
        thread.join(30)

    assert [_get(found).task_log for _, found in started] == (["part 4"] * 2 if bound else [""] * 2)
    warnings = [record.getMessage() for record in caplog.records if "taskstate.bound" in record.getMessage()]
    assert len(warnings) == (0 if bound else 1)


def test_threads_of_nobody_report_nothing(eager: TaskState, caplog: pytest.LogCaptureFixture) -> None:
    for report in (partial(report_progress, 1), partial(add_log, "nobody")):
        thread = threading.Thread(target=report)
        thread.start()
        thread.join()
    assert not caplog.records


def test_coroutine_is_run_with_context_and_session(eager: TaskState) -> None:
    task = eager.start(parallel.count_async.s(3))

    assert (task.status, task.progress_value, task.data) == ("SUCCESS", 3, {"session": True})
    assert task.task_log.splitlines() == ["part 1", "part 2", "part 3", "from a thread", "counted"]


def test_coroutine_that_raises_fails_the_task_and_rolls_back(eager: TaskState) -> None:
    task = eager.start(parallel.fail_async.s())
    assert (task.status, task.data) == ("ERROR", {})
    assert "ValueError: in the loop" in task.task_log


def test_coroutine_can_be_tried_again(eager: TaskState) -> None:
    task = eager.start(parallel.retry_async.s())
    assert (task.status, task.task_log) == ("SUCCESS", "at the second attempt")


def test_coroutine_runs_inside_a_loop_too(eager: TaskState) -> None:
    async def view() -> ProcessingTask:
        return eager.start(parallel.count_async.s(2))

    assert asyncio.run(view()).task_log.splitlines()[-1] == "counted"


def test_direct_call_of_a_coroutine_function_is_awaited_by_the_caller() -> None:
    async def call() -> int:
        return await parallel.add_async(1, 2)

    assert asyncio.run(call()) == 3


def test_forked_child_reports_nothing_and_reaches_neither_session_nor_connection(eager: TaskState) -> None:
    task = eager.start(parallel.fork_and_report.s())

    assert (task.status, task.task_log, task.progress_value) == ("SUCCESS", "child 3", None)
    assert task.data == {"before": 1, "after": 2}


def test_forked_child_that_leaves_the_function_is_ended(eager: TaskState, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        task = eager.start(parallel.fork_and_return.s())
    assert (task.status, task.task_log) == ("SUCCESS", "child 1")


def test_processes_of_multiprocessing_report_nothing_and_warn(
    eager: TaskState, capfd: pytest.CaptureFixture[str]
) -> None:
    handler = logging.StreamHandler()
    logging.getLogger("qhana_taskstate").addHandler(handler)
    try:
        task = eager.start(parallel.report_from_processes.s())
    finally:
        logging.getLogger("qhana_taskstate").removeHandler(handler)

    assert (task.task_log, task.progress_value, task.data) == ("joined", None, {"own": False})
    assert "is refused" in capfd.readouterr().err
