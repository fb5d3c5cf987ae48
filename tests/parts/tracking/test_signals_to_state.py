"""What a real prefork worker does, and what the rows say of it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from celery import chain, chord, group

from qhana_taskstate import ProcessingTask, StepNotOpenError, TaskFinishedError
from tests.apps.jobs import (
    add,
    ask,
    boom,
    call_directly,
    count_rows,
    fail,
    flaky,
    half_way,
    ignored,
    kill_child,
    leave,
    log_then_fail,
    never_works,
    nothing,
    number,
    rejected,
    remember,
    replaced,
    report_by_plain_task,
    say,
    spawn,
    start_another,
    too_long,
    total,
    wait_for_file,
    who,
    with_id,
    write_file,
)
from tests.parts.deployment import Deployment
from tests.waiting import wait_until

pytestmark = pytest.mark.versions


def test_single_task_goes_from_pending_to_success(deployment: Deployment, tmp_path: Path) -> None:
    task = deployment.taskstate.start(wait_for_file.s(str(tmp_path / "go")))
    assert task.status == "PENDING"
    assert not task.is_finished

    (tmp_path / "go").touch()
    task = deployment.taskstate.wait(task.id, timeout=20)

    assert (task.status, task.is_ok, task.task_log) == ("SUCCESS", True, "went on")
    assert task.finished_at is not None
    assert task.finished_at > task.started_at


def test_failed_task_ends_as_error_and_its_log_says_type_and_message(deployment: Deployment) -> None:
    task = deployment.run(fail.s("no such file"))

    assert task.status == "ERROR"
    assert "ValueError: no such file" in task.task_log
    assert "Traceback" not in task.task_log


def test_start_of_a_plugin_task_takes_its_own_arguments(deployment: Deployment) -> None:
    task = say.start(text="hello")

    assert deployment.taskstate.wait(task.id, timeout=20).task_log == "hello"
    assert task.task_name == "tests.apps.jobs.say"


def test_progress_and_log_are_seen_while_the_task_runs(deployment: Deployment) -> None:
    task = deployment.taskstate.start(half_way.s(60, pause=3))

    def seen() -> ProcessingTask | None:
        row = ProcessingTask.get_by_id(task.id)
        return row if row and row.progress_value is not None and row.task_log else None

    row = wait_until("the progress is seen", seen, timeout=10)
    assert row is not None
    assert (row.status, row.progress_value, row.progress_target, row.progress_unit) == ("PENDING", 60, 100, "%")
    assert row.task_log == "60 % done"
    # SUCCESS sets a reported progress to its target.
    assert deployment.taskstate.wait(task.id, timeout=20).progress_value == 100


def test_track_reports_the_items_and_their_unit(deployment: Deployment) -> None:
    task = deployment.run(count_rows.s(7))

    assert (task.progress_value, task.progress_start, task.progress_target, task.progress_unit) == (7, 0, 7, "rows")


def test_log_and_progress_survive_a_failure_but_session_changes_roll_back(deployment: Deployment) -> None:
    task = deployment.run(log_then_fail.s())

    assert task.status == "ERROR"
    assert task.task_log.splitlines()[0] == "kept line"
    assert "RuntimeError: after the line" in task.task_log
    assert (task.progress_value, task.data) == (30, {})


def test_uncommitted_changes_of_a_plugin_task_are_committed_when_it_returns(deployment: Deployment) -> None:
    task = deployment.run(remember.s("k", [1, 2]))

    assert task.data == {"k": [1, 2]}
    assert task.task_log == "remembered k"


def test_next_of_a_chain_sees_what_the_one_before_changed(deployment: Deployment) -> None:
    task = deployment.run(chain(remember.si("a", 1), remember.si("b", 2), remember.si("c", 3)))

    assert task.data == {"a": 1, "b": 2, "c": 3}
    assert task.task_log == "remembered c"


@pytest.mark.parametrize("position", [0, 1, 2])
def test_chain_fails_at_any_position(deployment: Deployment, position: int) -> None:
    parts = [nothing.si(), nothing.si(), nothing.si()]
    parts[position] = fail.si(f"at {position}")

    task = deployment.run(chain(*parts))

    assert task.status == "ERROR"
    assert f"ValueError: at {position}" in task.task_log


def test_chord_ends_after_its_body(deployment: Deployment) -> None:
    task = deployment.run(chord([add.s(i, 1) for i in range(5)], chain(total.s(), remember.s("x"))))
    assert task.status == "ERROR"  # remember(15, "x") stores under a key that is no text

    task = deployment.run(chord([add.s(i, 1) for i in range(5)], total.s() | say.s()))
    assert task.status == "SUCCESS"


def test_text_returned_by_the_body_of_a_chord_and_by_members_of_a_group_is_logged(deployment: Deployment) -> None:
    task = deployment.run(chord([add.s(1, 1), say.si("part")], remember.si("k", 2)))
    assert task.task_log == "remembered k"

    task = deployment.run(group(say.s("one"), say.s("two")))
    assert sorted(task.task_log.splitlines()) == ["one", "two"]


def test_chord_with_failing_header_ends_as_error(deployment: Deployment) -> None:
    task = deployment.run(chord([add.s(1, 1), boom.s(), add.s(2, 2)], total.s()))

    assert task.status == "ERROR"
    assert "LookupError: boom" in task.task_log


def test_group_ends_when_its_last_member_did(deployment: Deployment, tmp_path: Path) -> None:
    task = deployment.taskstate.start(group(add.s(1, 1), wait_for_file.s(str(tmp_path / "go"))))
    with pytest.raises(TimeoutError):
        deployment.taskstate.wait(task.id, timeout=0.6)

    (tmp_path / "go").touch()
    assert deployment.taskstate.wait(task.id, timeout=20).status == "SUCCESS"


def test_empty_group_ends_at_once(deployment: Deployment) -> None:
    assert deployment.run(group([]), timeout=5).status == "SUCCESS"


@pytest.mark.parametrize("what", ["task", "chain", "group", "chord"])
def test_replaced_task_ends_after_its_replacement(deployment: Deployment, what: str) -> None:
    task = deployment.run(replaced.s(what))

    assert task.status == "SUCCESS"
    assert task.data == {"before": 1}


def test_task_ends_after_everything_that_it_sent(deployment: Deployment) -> None:
    assert deployment.run(spawn.s(3)).status == "SUCCESS"


def test_retries_that_end_well_end_the_task_once(deployment: Deployment) -> None:
    task = deployment.run(flaky.s(2))

    assert (task.status, task.task_log) == ("SUCCESS", "worked at attempt 2")


def test_retries_that_run_out_end_as_error(deployment: Deployment) -> None:
    task = deployment.run(never_works.s())

    assert task.status == "ERROR"
    assert "ConnectionError: no luck" in task.task_log


def test_ignore_keeps_the_changes_and_ends_the_task(deployment: Deployment) -> None:
    task = deployment.run(ignored.s())

    assert (task.status, task.data) == ("SUCCESS", {"ignored": True})


@pytest.mark.parametrize(
    ("work", "told"),
    [(rejected, "unwanted"), (kill_child, "WorkerLostError"), (leave, "WorkerLostError"), (too_long, "TimeLimit")],
    ids=["rejected", "killed child", "sys.exit", "hard time limit"],
)
def test_ends_that_the_child_cannot_tell_of_end_as_error(deployment: Deployment, work: object, told: str) -> None:
    task = deployment.run(work)

    assert task.status == "ERROR"
    assert told in task.task_log


def test_current_task_is_found_by_self_and_by_declared_db_id(deployment: Deployment) -> None:
    task = deployment.run(who.s())
    assert task.task_log == f"task {task.id}"

    task = deployment.run(with_id.s("id"))  # type: ignore[call-overload]
    assert task.task_log == f"id {task.id}"


def test_plain_celery_call_with_db_id_belongs_to_that_task(deployment: Deployment) -> None:
    with deployment.taskstate.session_scope():
        row = ProcessingTask("by hand")
        row.save(commit=True)
        task_id = row.id
    with_id.apply_async(kwargs={"text": "plain", "db_id": str(task_id)})

    task = deployment.taskstate.wait(task_id, timeout=20)
    assert (task.status, task.task_log) == ("SUCCESS", f"plain {task_id}")


def test_plain_delay_of_a_plugin_task_becomes_a_job_of_its_own(deployment: Deployment) -> None:
    result = say.delay("alone")
    task = wait_until("the task is found", lambda: deployment.taskstate.find(result.id), timeout=10)
    assert task is not None

    task = deployment.taskstate.wait(task.id, timeout=20)
    assert (task.status, task.task_log, task.task_name) == ("SUCCESS", "alone", "tests.apps.jobs.say")


def test_send_task_by_name_becomes_a_job_of_its_own(deployment: Deployment) -> None:
    result = deployment.app.send_task("tests.apps.jobs.say", ["sent"])
    task = wait_until("the task is found", lambda: deployment.taskstate.find(result.id), timeout=10)
    assert task is not None
    assert deployment.taskstate.wait(task.id, timeout=20).task_log == "sent"


def test_step_parks_the_task_until_it_is_answered(deployment: Deployment) -> None:
    task = deployment.taskstate.start(ask.s("k"))
    task = deployment.taskstate.wait(task.id, timeout=20, or_step=True)
    assert (task.status, task.has_uncleared_step, task.multi_step) == ("PENDING", True, True)
    assert task.task_log == "asked for k"

    answered = deployment.taskstate.start(say.s("five"), task=task.id, answers="k")
    assert answered.id == task.id
    with pytest.raises((StepNotOpenError, TaskFinishedError)):
        deployment.taskstate.start(say.s("six"), task=task.id, answers="k")

    task = deployment.taskstate.wait(task.id, timeout=20)
    assert (task.status, task.task_log.splitlines()) == ("SUCCESS", ["asked for k", "five"])


def test_clear_commit_publish_as_todays_routes_do(deployment: Deployment) -> None:
    task = deployment.taskstate.start(ask.s("one"))
    deployment.taskstate.wait(task.id, timeout=20, or_step=True)
    with deployment.taskstate.session_scope():
        row = ProcessingTask.get_by_id(task.id)
        assert row is not None
        row.clear_previous_step()
        row.save(commit=True)
    # Nothing is open, yet the route is about to publish.
    time.sleep(0.3)
    assert ProcessingTask.get_by_id(task.id).status == "PENDING"  # type: ignore[union-attr]

    with_id.apply_async(kwargs={"text": "next", "db_id": task.id})
    assert deployment.taskstate.wait(task.id, timeout=20).status == "SUCCESS"


def test_start_inside_an_execution_makes_a_separate_job(deployment: Deployment, tmp_path: Path) -> None:
    task = deployment.run(start_another.s(str(tmp_path / "go")))
    other = int(task.task_log.removeprefix("started "))

    assert ProcessingTask.get_by_id(other).status == "PENDING"  # type: ignore[union-attr]
    (tmp_path / "go").touch()
    assert deployment.taskstate.wait(other, timeout=20).status == "SUCCESS"


def test_direct_call_of_a_plugin_task_inside_another_does_not_commit(deployment: Deployment) -> None:
    task = deployment.run(call_directly.s())

    assert (task.status, task.task_log) == ("SUCCESS", "called inner")


def test_value_that_is_no_text_is_ignored(deployment: Deployment) -> None:
    task = deployment.run(number.s())

    assert (task.status, task.task_log) == ("SUCCESS", "")


def test_plain_task_inside_a_tracked_job_reports_too(deployment: Deployment) -> None:
    task = deployment.run(report_by_plain_task.s())

    assert (task.task_log, task.progress_unit, task.progress_value) == ("from a plain task", "parts", 4)


def test_output_is_registered(deployment: Deployment, tmp_path: Path) -> None:
    task = deployment.run(write_file.s(str(tmp_path)))

    (output,) = task.outputs
    assert (output.file_name, output.file_type, output.mimetype) == ("out.csv", "entity/list", "text/csv")
    assert Path(output.file_storage_data).read_text() == "a,b\n"


def test_open_ended_task_waits_until_it_is_told(deployment: Deployment) -> None:
    task = deployment.taskstate.start(say.s("called"), finishes=False)
    wait_until("it ran", lambda: ProcessingTask.get_by_id(task.id).task_log, timeout=10)  # type: ignore[union-attr]
    assert ProcessingTask.get_by_id(task.id).status == "PENDING"  # type: ignore[union-attr]

    assert deployment.taskstate.finish(task.id, log="the other is done") is True
    assert deployment.taskstate.finish(task.id) is False
    row = ProcessingTask.get_by_id(task.id)
    assert row is not None
    assert (row.status, row.task_log) == ("SUCCESS", "called\nthe other is done")


def test_cancel_ends_the_task_and_keeps_what_has_not_begun_from_running(deployment: Deployment, tmp_path: Path) -> None:
    go = tmp_path / "go"
    task = deployment.taskstate.start(chain(wait_for_file.si(str(go)), write_file.si(str(tmp_path))))

    assert deployment.taskstate.cancel(task.id, reason="not needed") is True
    assert deployment.taskstate.cancel(task.id) is False
    go.touch()

    row = deployment.taskstate.wait(task.id, timeout=5)
    assert row.status == "ERROR"
    assert "cancelled: not needed" in row.task_log
    assert deployment.run(nothing.s()).status == "SUCCESS"
    assert not (tmp_path / "out.csv").exists()


def test_work_for_a_finished_task_is_refused(deployment: Deployment) -> None:
    task = deployment.run(nothing.s())

    with pytest.raises(TaskFinishedError, match="SUCCESS"):
        deployment.taskstate.start(nothing.s(), task=task)
