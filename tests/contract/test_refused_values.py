"""A value that the database refuses costs that value, never the fact: at the begin, in between, and at the end."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event, select

from qhana_taskstate import TaskState, add_log, plugin_task, report_progress, taskstate
from qhana_taskstate.database.tables.executions import execution_table
from qhana_taskstate.testing.waiting import wait_until
from tests.refusals import refuse


@pytest.fixture
def strict(eager: TaskState) -> TaskState:
    """A `TaskState` on a database with constraints of its own."""
    refuse(eager.database.engine)
    return eager


@plugin_task(name="contract.strict", max_retries=77)
def reports(unit: str, line: str, error: str) -> str:
    """Report what is given."""
    report_progress(1, target=4, unit=unit)
    add_log(line)
    if error:
        raise ValueError(error)
    return "done"


def execution(state: TaskState) -> Any:
    with state.database.reading() as connection:
        return connection.execute(select(execution_table)).one()


def test_a_begin_that_is_refused_is_recorded_without_what_is_refused(strict: TaskState) -> None:
    assert strict.start(reports.s("rows", "fine", "")).status == "SUCCESS"

    row = execution(strict)
    assert (row.state, row.max_retries, row.deliveries) == ("SUCCESS", None, 1)
    assert row.pid is not None and row.host and row.started_at is not None


def test_an_end_whose_log_is_refused_is_the_same_end(strict: TaskState) -> None:
    task = strict.start(reports.s("rows", "\N{LATIN SMALL LETTER A WITH DIAERESIS}", ""))

    assert (task.status, task.task_log, task.progress_unit) == ("SUCCESS", "?\ndone", "rows")


def test_an_end_whose_progress_is_refused_is_the_same_end(strict: TaskState) -> None:
    task = strict.start(reports.s("bananas", "fine", ""))

    assert (task.status, execution(strict).state) == ("SUCCESS", "SUCCESS")
    assert "could not be stored" in task.task_log and "FactLost" not in task.task_log


def test_a_failure_whose_text_is_refused_is_a_failure_of_its_type(strict: TaskState) -> None:
    task = strict.start(reports.s("rows", "fine", "sorry"))

    row = execution(strict)
    assert (task.status, row.state, row.error_type) == ("ERROR", "FAILURE", "ValueError")
    assert "ValueError" in task.task_log


@plugin_task(name="contract.flushed")
def flushed(unit: str) -> str:
    """Report something odd, and go on once it was flushed."""
    task_id = taskstate.current().id
    report_progress(1, target=4, unit=unit)
    add_log("fine")
    wait_until("it was flushed", lambda: "could not be stored" in taskstate.describe(task_id)["log"])
    report_progress(2, target=4, unit="rows")
    return "done"


@pytest.mark.parametrize(
    "error",
    [OverflowError("Python int too large"), UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")],
    ids=lambda error: type(error).__name__,
)
def test_what_the_driver_cannot_even_send_is_left_out_by_a_flush(eager: TaskState, error: Exception) -> None:
    def refuse_bananas(connection: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> None:
        if "bananas" in str(parameters):
            raise error

    # SQLAlchemy does not wrap what is no error class of the driver.
    event.listen(eager.database.engine, "before_cursor_execute", refuse_bananas)

    task = eager.start(flushed.s("bananas"))

    assert (task.status, task.progress_value, task.progress_unit) == ("SUCCESS", 4, "rows")
    assert "FactLost" not in task.task_log and task.task_log.endswith("done")
