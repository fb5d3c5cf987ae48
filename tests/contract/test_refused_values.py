"""A value that the database refuses costs that value, never the fact: at the begin, in between, and at the end."""

from __future__ import annotations

import re
from typing import Any

import pytest
from sqlalchemy import select, text

from qhana_taskstate import TaskState, add_log, plugin_task, report_progress
from qhana_taskstate.database.tables.executions import execution_table

#: What the administrator of a database does not want to have there.
REFUSED = {
    "taskstate_execution": "max_retries = 77 OR progress_unit = 'bananas' OR error LIKE '%sorry%'",
    "taskstate_log": "text LIKE '%\N{LATIN SMALL LETTER A WITH DIAERESIS}%' OR text LIKE '%sorry%'",
}


def _refusals(dialect: str, table: str, condition: str) -> list[str]:
    if dialect != "sqlite":
        return [f"ALTER TABLE {table} ADD CHECK (NOT coalesce({condition}, false))"]
    unwanted = re.sub(r"\b(text|max_retries|progress_unit|error)\b", r"NEW.\1", condition)
    return [
        f"CREATE TRIGGER {table}_{change} BEFORE {change} ON {table} WHEN {unwanted} "
        "BEGIN SELECT RAISE(ABORT, 'unwanted'); END"
        for change in ("INSERT", "UPDATE")
    ]


@pytest.fixture
def strict(eager: TaskState) -> TaskState:
    """A `TaskState` on a database with constraints of its own."""
    with eager.database.engine.begin() as connection:
        for table, condition in REFUSED.items():
            for statement in _refusals(connection.dialect.name, table, condition):
                connection.execute(text(statement))
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
