"""Which task code and messages belong to."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from qhana_taskstate import belonging
from qhana_taskstate.belonging import HEADER, Execution, ExecutionKey, Publisher, Submission, TaskRef


def execution(task_id: int = 1) -> Execution:
    return Execution(TaskRef(task_id, "token"), key=ExecutionKey(f"id-{task_id}"), name="job")


@pytest.mark.parametrize("value", [None, 3, "", "7", "7:", "x:abc", "-1:abc", b"7:abc", "٣:abc"])
def test_foreign_header_value_is_no_task(value: object) -> None:
    assert TaskRef.decode(value) is None


def test_header_value_is_read_as_it_was_written() -> None:
    assert TaskRef.decode(TaskRef(7, "a:b").encode()) == TaskRef(7, "a:b")


def test_task_of_a_request_is_found_in_headers_attribute_and_request_dict() -> None:
    value = TaskRef(5, "t").encode()

    for request in (
        SimpleNamespace(headers={HEADER: value}),
        SimpleNamespace(headers=None, **{HEADER: value}),
        SimpleNamespace(request_dict={HEADER: value}),
    ):
        assert belonging.ref_of_request(request) == TaskRef(5, "t")
    assert belonging.ref_of_request(SimpleNamespace(headers={})) is None


def test_nested_execution_gives_back_the_outer_one() -> None:
    outer, inner = execution(1), execution(2)
    leave_outer = belonging.enter(outer)
    leave_inner = belonging.enter(inner)
    assert belonging.current_execution() is inner

    leave_inner()
    assert belonging.current_execution() is outer
    leave_outer()
    assert belonging.current_execution() is None


def test_submission_goes_before_the_execution_and_detached_before_both() -> None:
    leave = belonging.enter(execution())
    submission = Submission(TaskRef(2, "x"))
    with belonging.submitting(submission):
        assert belonging.current_publisher() is submission
        with belonging.detached():
            assert not isinstance(belonging.current_publisher(), Publisher)
    leave()


def test_raw_thread_belongs_only_if_it_is_bound() -> None:
    running = execution()
    leave = belonging.enter(running)
    seen: list[object] = []

    def look() -> None:
        seen.append(belonging.current_execution())

    for target in (look, belonging.bound(look)):
        thread = threading.Thread(target=target)
        thread.start()
        thread.join()
    leave()

    assert seen == [None, running]


def test_progress_reported_while_it_is_taken_is_not_lost() -> None:
    running = execution()
    running.progress = belonging.Progress(1.0)
    running.progress_dirty = True

    assert running.take_progress() == belonging.Progress(1.0)
    assert running.take_progress() is None
    running.progress = belonging.Progress(2.0)
    running.progress_dirty = True
    assert running.take_progress() == belonging.Progress(2.0)
