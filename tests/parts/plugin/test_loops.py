"""`track` and `report_progress` in loops: what the writer of the progress finds at each moment."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator

import pytest

from qhana_taskstate import ProgressError, report_progress, track
from qhana_taskstate.context import current
from qhana_taskstate.context.execution import Execution
from qhana_taskstate.facts import ExecutionKey, Progress, TaskRef


@pytest.fixture
def running() -> Iterator[Execution]:
    execution = Execution(TaskRef(1, "token"), key=ExecutionKey("id"), name="loops")
    leave = current.enter(execution)
    yield execution
    leave()


def test_writer_sees_every_item_as_soon_as_it_is_done(running: Execution) -> None:
    seen = []
    for _ in track(["a", "b"], unit="rows"):
        seen.append(running.take_progress())
    seen.append(running.take_progress())

    assert seen == [Progress(0.0, 0.0, 2.0, "rows"), Progress(1.0, 0.0, 2.0, "rows"), Progress(2.0, 0.0, 2.0, "rows")]
    assert running.take_progress() is None
    assert not running.dirty


def test_target_of_an_unknown_number_moves_along(running: Execution) -> None:
    seen = []
    for _ in track(letter for letter in "ab"):
        seen.append(running.take_progress())
    seen.append(running.take_progress())

    assert [(progress.value, progress.target) for progress in seen if progress] == [(0, 1), (1, 2), (2, 2)]


def test_report_in_a_loop_counts_until_the_next_item(running: Execution) -> None:
    seen = []
    for number in track(range(3)):
        if number == 1:
            report_progress(50, target=100, unit="%")
            seen.append(running.take_progress())
    seen.append(running.take_progress())

    assert seen == [Progress(50.0, 0.0, 100.0, "%"), Progress(3.0, 0.0, 3.0, "items")]


def test_inner_loop_counts_until_the_next_item_of_the_outer_one(running: Execution) -> None:
    seen = []
    for _ in track(range(2), unit="files"):
        seen.append(running.take_progress())
        for _ in track(range(5), unit="rows"):
            pass
        seen.append(running.take_progress())
    seen.append(running.take_progress())

    rows, files = Progress(5.0, 0.0, 5.0, "rows"), [Progress(number, 0.0, 2.0, "files") for number in (0.0, 1.0, 2.0)]
    assert seen == [files[0], rows, files[1], rows, files[2]]


def test_loop_that_is_left_says_how_far_it_came(running: Execution) -> None:
    for number in track(range(10)):
        if number == 4:
            break
    gc.collect()

    assert running.take_progress() == Progress(4.0, 0.0, 10.0, "items")
    assert running.loop is None


def test_loop_that_nobody_goes_on_with_does_not_overwrite_what_was_said_since(running: Execution) -> None:
    left = track(range(10))
    next(left)
    for _ in track(range(2)):
        pass
    report_progress(7, target=8)
    del left
    gc.collect()

    assert running.take_progress() == Progress(7.0, 0.0, 8.0, "items")
    assert running.loop is None


def test_what_was_not_written_waits_again(running: Execution) -> None:
    report_progress(1)
    assert running.take_progress() == Progress(1.0)
    running.give_back_progress()
    assert running.dirty
    assert running.take_progress() == Progress(1.0)


@pytest.mark.parametrize("start", [float("nan"), 10**400, "1", True])
def test_wrong_start_and_target_are_refused_and_leave_what_was_said(running: Execution, start: float) -> None:
    report_progress(1)
    with pytest.raises(ProgressError):
        report_progress(2, start=start)
    with pytest.raises(ProgressError):
        report_progress(2, target=start)
    assert running.take_progress() == Progress(1.0)


def seconds_of(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def test_a_report_in_a_hot_loop_is_as_cheap_as_a_few_calls(running: Execution) -> None:
    # Ratios to what the interpreter needs for a call: they hold on slow machines too. The benchmark has the numbers.
    def nothing(value: int, *, target: int | None = None, unit: str | None = None) -> None:
        pass

    def call(function: Callable[..., object]) -> Callable[[], None]:
        def calls() -> None:
            for number in range(50_000):
                function(number, target=50_000)

        return calls

    def loop() -> None:
        for _ in track(range(50_000)):
            pass

    plain = min(seconds_of(call(nothing)) for _ in range(5))
    assert min(seconds_of(call(report_progress)) for _ in range(5)) < 12 * plain
    assert min(seconds_of(loop) for _ in range(5)) < 4 * plain
