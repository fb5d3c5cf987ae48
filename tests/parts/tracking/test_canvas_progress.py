"""What a task of several executions shows of its progress."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from celery import chain, chord, group
from sqlalchemy import update

from qhana_taskstate import ProcessingTask
from qhana_taskstate.reading.rows import executions
from tests.apps.jobs import add, fail, half_way, nothing, total, wait_for_file
from tests.parts.deployment import Deployment
from tests.waiting import wait_until


def progress(task_id: int) -> tuple[float | None, float, str]:
    task = ProcessingTask.get_by_id(task_id)
    assert task is not None
    return task.progress_value, task.progress_target, task.progress_unit


def test_group_shows_how_many_members_have_succeeded(deployment: Deployment, tmp_path: Path) -> None:
    members = [add.s(1, 1), add.s(2, 2), wait_for_file.s(str(tmp_path / "go"))]
    task = deployment.taskstate.start(group(members))

    wait_until("two of three are done", lambda: progress(task.id) == (2, 3, "tasks"), timeout=10)
    (tmp_path / "go").touch()
    deployment.taskstate.wait(task.id, timeout=20)
    assert progress(task.id) == (3, 3, "tasks")


def test_short_chord_shows_all_its_members_at_its_end(deployment: Deployment) -> None:
    task = deployment.run(chord([add.s(1, 1), add.s(2, 2)], total.s()))

    assert progress(task.id) == (3, 3, "tasks")


def test_members_that_report_count_in_part_and_their_bar_never_goes_back(deployment: Deployment) -> None:
    task = deployment.taskstate.start(chain(group(half_way.si(40, 0.3) for _ in range(8)), half_way.si(20, 0.5)))

    seen: list[tuple[float | None, float, str]] = []
    while True:
        shown = progress(task.id)
        # Asked afterwards: it may end in between.
        if ProcessingTask.get_by_id(task.id).is_finished:  # type: ignore[union-attr]  # it is there
            break
        seen.append(shown)
        time.sleep(0.05)

    shares = [value / target for value, target, _ in seen if value is not None]
    assert shares == sorted(shares)
    assert {unit for value, _, unit in seen if value is not None} == {"tasks"}
    assert any(value % 1 for value, _, _ in seen if value is not None)
    assert max(shares) < 1
    assert progress(task.id) == (9, 9, "tasks")


def test_lone_execution_shows_its_own(deployment: Deployment) -> None:
    assert progress(deployment.run(half_way.s(40)).id) == (100, 100, "%")


@pytest.mark.parametrize("unit", ["rounds", "tasks"], ids=["its own unit", "as a canvas does"])
def test_what_a_plugin_wrote_into_the_row_wins(deployment: Deployment, tmp_path: Path, unit: str) -> None:
    task = ProcessingTask("by hand", progress_value=3, progress_target=7, progress_unit=unit)
    task.save(commit=True)
    members = [half_way.si(40), nothing.si(), wait_for_file.si(str(tmp_path / "go"))]

    deployment.taskstate.start(group(members), task=task)
    _wait_for_successes(deployment, task.id, 2)
    assert progress(task.id) == (3, 7, unit)
    (tmp_path / "go").touch()
    deployment.taskstate.wait(task.id, timeout=20)

    assert progress(task.id) == (7, 7, unit)


@pytest.mark.parametrize("by_statement", [False, True], ids=["a flush", "a statement"])
def test_value_that_is_written_alone_within_the_canvas_wins(
    deployment: Deployment, tmp_path: Path, by_statement: bool
) -> None:
    task = deployment.taskstate.start(
        group([nothing.si(), nothing.si(), wait_for_file.si(f"{tmp_path}/one"), wait_for_file.si(f"{tmp_path}/go")])
    )
    wait_until("two of four are done", lambda: progress(task.id) == (2, 4, "tasks"), timeout=20)

    session = deployment.taskstate.session
    if by_statement:
        session.execute(update(ProcessingTask).where(ProcessingTask.id == task.id).values(progress_value=1))
    else:
        task.progress_value = 1
    session.commit()
    (tmp_path / "one").touch()
    _wait_for_successes(deployment, task.id, 3)
    assert progress(task.id) == (1, 4, "tasks")
    (tmp_path / "go").touch()
    deployment.taskstate.wait(task.id, timeout=20)

    assert progress(task.id) == (4, 4, "tasks")


def _wait_for_successes(deployment: Deployment, task_id: int, count: int) -> None:
    with deployment.taskstate.database.reading() as connection:
        wait_until(
            f"{count} are done",
            lambda: [view.state for view in executions.executions(connection, task_id)].count("SUCCESS") == count,
            timeout=20,
        )


def test_single_task_without_reports_shows_none(deployment: Deployment) -> None:
    assert progress(deployment.run(nothing.s()).id)[0] is None


def test_failed_canvas_keeps_what_it_showed(deployment: Deployment) -> None:
    task = deployment.run(chain(nothing.si(), fail.si()))

    assert task.status == "ERROR"
    assert task.progress_value in (None, 1)
