"""Which task code and messages belong to."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from qhana_taskstate.context import current, header
from qhana_taskstate.context.execution import Execution, Publisher, Submission
from qhana_taskstate.context.header import HEADER
from qhana_taskstate.context.nesting import nesting_of
from qhana_taskstate.facts import ExecutionKey, Progress, TaskRef


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
        assert header.ref_of_request(request) == TaskRef(5, "t")
    assert header.ref_of_request(SimpleNamespace(headers={})) is None


def test_nested_execution_gives_back_the_outer_one() -> None:
    outer, inner = execution(1), execution(2)
    leave_outer = current.enter(outer)
    leave_inner = current.enter(inner)
    assert current.current_execution() is inner

    leave_inner()
    assert current.current_execution() is outer
    leave_outer()
    assert current.current_execution() is None


def test_submission_goes_before_the_execution_and_detached_before_both() -> None:
    leave = current.enter(execution())
    submission = Submission(TaskRef(2, "x"))
    with current.submitting(submission):
        assert current.current_publisher() is submission
        with current.detached():
            assert not isinstance(current.current_publisher(), Publisher)
    leave()


def test_raw_thread_belongs_only_if_it_is_bound() -> None:
    running = execution()
    leave = current.enter(running)
    seen: list[object] = []

    def look() -> None:
        seen.append(current.current_execution())

    for target in (look, current.bound(look)):
        thread = threading.Thread(target=target)
        thread.start()
        thread.join()
    leave()

    assert seen == [None, running]


def test_progress_reported_while_it_is_taken_is_not_lost() -> None:
    running = execution()
    running.reported = (1.0, 0.0, 100.0, "%")

    assert running.take_progress() == Progress(1.0)
    assert running.take_progress() is None
    running.reported = (2.0, 0.0, 100.0, "%")
    assert running.take_progress() == Progress(2.0)


def signature(celery_id: str, **more: object) -> dict[str, object]:
    return {"task": "t", "args": [], "kwargs": {}, "options": {"task_id": celery_id}, "subtask_type": None, **more}


def body_of(**follows: object) -> tuple[list[object], dict[str, object], dict[str, object]]:
    return ([], {}, {"chain": None, "callbacks": None, "chord": None, **follows})


OWN = signature("own")
OTHER = signature("other")


@pytest.mark.parametrize(
    ("headers", "follows", "expected"),
    [
        pytest.param({"id": "new"}, {}, 2, id="what an execution sends is as deep as it is"),
        pytest.param(
            {"id": "new", "replaced_task_nesting": 5}, {}, 5, id="Celery's own number is kept if it is higher"
        ),
        pytest.param({"id": "own"}, {}, 3, id="its replacement"),
        pytest.param({"id": "own", "retries": 2, "replaced_task_nesting": 2}, {}, 2, id="its next attempt"),
        pytest.param({"id": "new"}, {"chain": [OWN, OTHER]}, 3, id="a chain that ends with its id"),
        pytest.param({"id": "new"}, {"chain": [OTHER]}, 2, id="a chain that does not"),
        pytest.param({"id": "new"}, {"callbacks": [OTHER, OWN]}, 3, id="a callback with its id"),
        pytest.param({"id": "new"}, {"chord": OWN}, 3, id="a chord whose body has its id"),
        pytest.param(
            {"id": "new"},
            {"chord": signature("b", subtask_type="chain", kwargs={"tasks": [OTHER, OWN]})},
            3,
            id="a chord whose body is a chain that ends with its id",
        ),
        pytest.param(
            {"id": "new"},
            {
                "chain": [
                    signature("g", subtask_type="group", kwargs={"tasks": [signature("m", options={"chord": OWN})]})
                ]
            },
            3,
            id="a group whose members lead to a chord with its id",
        ),
    ],
)
def test_message_is_nested_so_that_its_key_is_its_own(
    headers: dict[str, object], follows: dict[str, object], expected: int
) -> None:
    publisher = Execution(TaskRef(1, "t"), key=ExecutionKey("own", retries=1, nesting=2), name="n")

    assert nesting_of({"task": "t", "retries": 0, **headers}, body_of(**follows), publisher) == expected


def test_helper_that_waits_for_a_chord_leads_to_its_body() -> None:
    publisher = Execution(TaskRef(1, "t"), key=ExecutionKey("own"), name="n")
    headers = {"id": "new", "task": "celery.chord_unlock"}

    assert nesting_of(headers, (["group", OWN], {}, {}), publisher) == 1
    assert nesting_of({**headers, "task": "mine"}, (["group", OWN], {}, {}), publisher) == 0


@pytest.mark.parametrize("odd", [None, "text", {"x": 1}, [1, 2], (["a"], {}, {"chain": [None, 3, "x"], "chord": "y"})])
def test_body_of_another_form_leads_nowhere(odd: object) -> None:
    publisher = Execution(TaskRef(1, "t"), key=ExecutionKey("own"), name="n")

    assert nesting_of({"id": "new", "task": "t"}, odd, publisher) == 0
