"""Progress, log and outputs, inside and outside of executions."""

from __future__ import annotations

import logging
import re
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from qhana_taskstate import (
    NotInExecutionError,
    ProcessingTask,
    TaskState,
    add_log,
    add_output,
    plugin_task,
    report_progress,
    taskstate,
    track,
)
from qhana_taskstate.testing.plugin import StartWorker
from tests.apps.jobs import count_rows, fail, flaky, half_way, log_then_fail, say, write_file
from tests.contract.conftest import MakeState

pytestmark = pytest.mark.versions


@plugin_task(name="contract.log_record_eager")
def log_record(text: str) -> None:
    """Emit a record of logging."""
    logging.getLogger("some.library").warning("%s", text)


@plugin_task(name="contract.log_odd")
def log_odd() -> str:
    """Log what a text column cannot hold."""
    add_log("nul \0 surrogate \udc80")
    report_progress(Decimal("1.5"), target=Fraction(3, 1), unit="µ" * 100)  # type: ignore[arg-type]
    return "end \0 \udc80"


def test_reports_outside_of_an_execution_do_nothing() -> None:
    report_progress(1, target=2)
    add_log("nobody hears")
    assert list(track([1, 2])) == [1, 2]
    assert list(track(iter("ab"))) == ["a", "b"]


@pytest.mark.parametrize("value", ["x", "5", None, float("nan"), float("inf"), True, 10**400, [], Decimal("nan"), 1j])
def test_progress_that_makes_no_sense_raises_at_the_call(value: Any) -> None:
    for error in (ValueError, TypeError):
        with pytest.raises(error):
            report_progress(value)
    if value is not None:
        with pytest.raises(ValueError, match="target"):
            report_progress(1, target=value)


def test_progress_beyond_a_float_raises_at_the_call() -> None:
    with pytest.raises(ValueError):
        report_progress(Fraction(10**400))  # type: ignore[arg-type]


def test_largest_floats_are_numbers() -> None:
    report_progress(1.7e308)


def test_total_that_is_nan_raises() -> None:
    with pytest.raises(ValueError):
        list(track([1], total=float("nan")))


@pytest.mark.parametrize("text", [None, 5, b"x"])
def test_log_entry_that_is_no_text_raises(text: Any) -> None:
    with pytest.raises(TypeError):
        add_log(text)


def test_output_needs_a_file_and_an_execution(tmp_path: Path) -> None:
    for missing in (tmp_path / "no.csv", tmp_path):
        with pytest.raises(FileNotFoundError):
            add_output(missing, file_type="t", mimetype="m")
    (tmp_path / "a").touch()
    with pytest.raises(NotInExecutionError):
        add_output(tmp_path / "a", file_type="t", mimetype="m")


def test_reports_of_an_eager_task_are_kept(eager: TaskState, tmp_path: Path) -> None:
    task = eager.start(count_rows.s(3))
    assert (task.progress_value, task.progress_target, task.progress_unit, task.task_log) == (3, 3, "rows", "sum 3")
    assert eager.start(half_way.s(60)).progress_value == 100
    failed = eager.start(log_then_fail.s())
    assert (failed.progress_value, failed.task_log.splitlines()[0]) == (30, "kept line")
    (output,) = eager.start(write_file.s(str(tmp_path))).outputs
    assert output.storage_provider == "local_filesystem"
    assert len(output.security_tag) >= 16


def test_text_returned_by_an_eager_retry_is_logged(eager: TaskState) -> None:
    assert eager.start(flaky.s(1)).task_log == "worked at attempt 1"


def test_texts_that_no_column_can_hold_end_the_task_all_the_same(eager: TaskState) -> None:
    task = eager.start(log_odd.s())
    assert (task.status, len(task.task_log.splitlines())) == ("SUCCESS", 2)


@pytest.mark.parametrize("message", ["nul \0", "surrogate \udc80"], ids=["nul", "surrogate"])
def test_error_whose_text_no_column_can_hold_ends_the_task(eager: TaskState, message: str) -> None:
    assert eager.start(fail.s(message)).status == "ERROR"


def test_endless_lines_and_errors_are_cut_in_the_middle(eager: TaskState) -> None:
    text = "a" * 2_000_000 + "z" * 1_000_000
    for task in (eager.start(say.s(text)), eager.start(fail.s(text))):
        assert len(task.task_log) < 17_000
        assert re.search(r"a … \[2,9\d\d,\d\d\d characters left out\] … z", task.task_log)


def test_a_long_log_of_short_lines_is_kept_whole(eager: TaskState) -> None:
    text = "\n".join(["x" * 99] * 30_000)
    assert eager.start(say.s(text)).task_log == text


@pytest.mark.databases("sqlite")
def test_log_records_are_captured_in_eager_mode(make_state: MakeState) -> None:
    state = make_state(eager=True, capture_log_level="WARNING")
    try:
        task = state.start(log_record.s("from logging"))
    finally:
        _remove_handlers()
    assert task.task_log.count("from logging") == 1


def _remove_handlers() -> None:
    for handler in list(logging.getLogger().handlers):
        if type(handler).__module__.startswith("qhana_taskstate"):
            logging.getLogger().removeHandler(handler)


@pytest.mark.databases("sqlite")
def test_log_records_are_captured_in_a_worker(
    make_state: MakeState, start_worker: StartWorker, broker_url: str
) -> None:
    start_worker("tests.contract.capturing_worker:app", concurrency=1)
    state = make_state(broker=broker_url)

    result = state.app.send_task("contract.log_record", ["from logging"], queue="jobs")
    task = None
    for _ in range(100):
        task = state.find(result.id)
        if task is not None:
            break
        __import__("time").sleep(0.05)
    assert task is not None
    assert "from logging" in state.wait(task.id, timeout=20).task_log


def test_current_task_is_read_anew(eager: TaskState) -> None:
    assert ProcessingTask.get_by_id(eager.start(say.s()).id) is not None
    with pytest.raises(NotInExecutionError):
        taskstate.current()


@plugin_task(name="contract.fail_in_several_ways")
def fail_in_several_ways() -> None:
    """Fail with a group of errors that have notes and causes."""
    try:
        raise OSError("the disk is full")
    except OSError as exc:
        error = ValueError("row 7")
        error.add_note("of x.csv")
        error.__cause__ = exc
        raise ExceptionGroup("several", [error, KeyError("k")]) from None


@plugin_task(name="contract.fail_in_the_database")
def fail_in_the_database(quoted: bool) -> None:
    """Let the database refuse a statement of the plugin's own."""
    try:
        taskstate.session.execute(text("SELECT geheim_column FROM geheim_table WHERE x = :x"), {"x": "geheim_value"})
    except DBAPIError as exc:
        add_log(f"tried: {exc}")
        logging.getLogger("some.library").exception("it failed: %s", exc)
        if not quoted:
            raise
        raise RuntimeError(f"import: {exc}") from exc


def test_a_failure_tells_its_real_cause(eager: TaskState) -> None:
    assert eager.start(fail_in_several_ways.s()).task_log.splitlines() == [
        "contract.fail_in_several_ways failed: ExceptionGroup: several (2 sub-exceptions)",
        "- ValueError: row 7",
        "  note: of x.csv",
        "  caused by OSError: the disk is full",
        "- KeyError: 'k'",
    ]


@pytest.mark.parametrize("quoted", [False, True])
def test_no_sql_and_no_value_reaches_the_log(make_state: MakeState, quoted: bool) -> None:
    state = make_state(eager=True, capture_log_level="WARNING")
    try:
        log = state.start(fail_in_the_database.s(quoted)).task_log
    finally:
        _remove_handlers()
    assert "geheim" not in log and "SELECT" not in log
    assert "the database refused a statement" in log and "tried: (a database error" in log and "it failed: " in log
