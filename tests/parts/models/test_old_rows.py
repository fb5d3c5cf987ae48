"""The classes on a database that a plugin runner made and goes on using."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from qhana_taskstate.database import schema
from qhana_taskstate.database.engine import Database
from qhana_taskstate.database.sessions.scopes import Sessions
from qhana_taskstate.models.file import TaskFile
from qhana_taskstate.models.step import Step
from qhana_taskstate.models.subscription import TaskUpdateSubscription
from qhana_taskstate.models.task import ProcessingTask
from tests.parts.database import runner_database as runner


@pytest.fixture
def old(bare_database: Database, install_sessions: Callable[..., Sessions]) -> Iterator[Session]:
    """A session on a runner's database that was upgraded."""
    with bare_database.engine.begin() as connection:
        runner.fill(connection)
    schema.upgrade(bare_database)
    with install_sessions(bare_database).scope() as session:
        yield session


def get(task_id: int) -> ProcessingTask:
    task = ProcessingTask.get_by_id(task_id)
    assert task is not None
    return task


def test_rows_of_all_ages_can_be_read(old: Session) -> None:
    assert [get(task_id).status for task_id in range(1, 7)] == [
        "SUCCESS",
        "ERROR",
        "RETRY",
        "UNKNOWN",
        "PENDING",
        "PENDING",
    ]
    assert get(runner.FINISHED).data == {"ä": [1.5]}
    assert get(runner.FINISHED).task_log == "one\ntwo"
    assert get(runner.FINISHED).links[0].type == "of-weights"
    assert get(runner.FAILED).data is None
    assert get(runner.OPEN).has_uncleared_step
    assert TaskUpdateSubscription.get_by_task_and_event(runner.OPEN, "status")[0].webhook_href == "hook"


def test_a_moment_of_a_runner_is_utc(old: Session) -> None:
    assert get(runner.FINISHED).finished_at == runner.END.replace(tzinfo=UTC)


def test_null_reads_as_the_default(old: Session) -> None:
    task = get(runner.EMPTY)

    assert (task.task_name, task.parameters, task.progress_unit, task.task_log) == ("", "", "%", "")
    assert (task.multi_step, task.current_step) == (False, -1)
    assert (task.progress_value, task.progress_start, task.progress_target) == (None, 0, 100)
    assert task.data == {}
    assert task.started_at == datetime(1970, 1, 1, tzinfo=UTC)

    (step,) = task.steps
    assert (step.step_id, step.href, step.ui_href, step.cleared) == ("", "", "", False)

    (file,) = task.outputs
    assert (file.file_type, file.mimetype) == (None, None)
    assert file.created_at == datetime(1970, 1, 1, tzinfo=UTC)
    assert TaskFile.get_task_result_files(task) == []


@pytest.mark.parametrize(
    "name",
    [
        "task_name",
        "parameters",
        "multi_step",
        "current_step",
        "progress_start",
        "progress_target",
        "progress_unit",
    ],
)
def test_none_is_taken_as_the_default(old: Session, name: str) -> None:
    task = get(runner.FINISHED)

    setattr(task, name, None)
    old.commit()

    assert getattr(task, name) is not None


def test_rows_with_null_can_be_worked_with(old: Session) -> None:
    task = get(runner.EMPTY)
    task.data["k"] = 1
    task.add_task_log_entry("line")
    task.progress_value = 3
    assert task.clear_previous_step()
    task.add_next_step("href", "ui", "next")
    task.task_status = "SUCCESS"
    old.commit()

    task = get(runner.EMPTY)
    assert (task.status, task.data, task.task_log, task.progress_value) == ("SUCCESS", {"k": 1}, "line", 100)
    assert [(step.number, step.cleared) for step in task.steps] == [(0, True), (1, True)]


def test_a_runner_can_read_and_write_what_we_wrote(old: Session) -> None:
    task = ProcessingTask("ours", parameters="{}", data={"k": [1]}, task_log="line")
    task.add_next_step("href", "ui", "k")
    task.save(commit=True)
    table = runner.processing_task

    row = old.connection().execute(select(table).where(table.c.id == task.id)).one()
    assert (row.task_name, row.data, row.task_log) == ("ours", {"k": [1]}, "line")
    assert (row.multi_step, row.current_step, row.progress_unit) == (True, 0, "%")

    old.connection().execute(
        update(table)
        .where(table.c.id == task.id)
        .values(task_log=table.c.task_log + "\ntheirs", data={"k": 2}, task_status="FAILURE", finished_at=runner.END)
    )
    old.connection().execute(
        insert(runner.step).values(id=task.id, number=1, step_id="x", href="h", ui_href="u", cleared=False)
    )
    old.commit()

    read = get(task.id)
    assert (read.task_log, read.data, read.status) == ("line\ntheirs", {"k": 2}, "ERROR")
    assert [step.step_id for step in read.steps] == ["k", "x"]


def test_a_runner_can_delete_a_task_of_ours(old: Session) -> None:
    task = ProcessingTask("ours", task_log="line")
    task.save(commit=True)

    old.connection().execute(delete(runner.processing_task).where(runner.processing_task.c.id == task.id))
    old.commit()

    assert ProcessingTask.get_by_id(task.id) is None


def test_a_step_of_an_old_row_can_be_cleared_and_followed(old: Session) -> None:
    task = get(runner.OPEN)
    with pytest.raises(AssertionError, match="'k'"):
        task.add_next_step("href", "ui", "next")

    task.clear_previous_step()
    task.add_next_step("href", "ui", "next", commit=True)

    steps: list[Any] = list(old.scalars(select(Step).where(Step.id == runner.OPEN).order_by(Step.number)))
    assert [(step.number, step.cleared) for step in steps] == [(0, True), (1, False)]
    assert task.current_step == 1
