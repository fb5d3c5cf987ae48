"""What a canvas shows that reports no progress itself."""

from __future__ import annotations

from pathlib import Path

from celery import chain, chord, group

from qhana_taskstate import ProcessingTask
from tests.apps.jobs import add, fail, half_way, nothing, total, wait_for_file
from tests.waiting import wait_until
from tests.worker.conftest import Deployment


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


def test_progress_that_a_member_reports_is_left_alone(deployment: Deployment) -> None:
    task = deployment.run(chain(half_way.si(40), nothing.si()))

    assert progress(task.id) == (100, 100, "%")


def test_single_task_without_reports_shows_none(deployment: Deployment) -> None:
    assert progress(deployment.run(nothing.s()).id)[0] is None


def test_failed_canvas_keeps_what_it_showed(deployment: Deployment) -> None:
    task = deployment.run(chain(nothing.si(), fail.si()))

    assert task.status == "ERROR"
    assert task.progress_value in (None, 1)
