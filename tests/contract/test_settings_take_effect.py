"""Each setting changes what happens, wherever it applies."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import chain, group
from sqlalchemy import Connection, select

from qhana_taskstate import ProcessingTask, TaskFile, TaskState, add_log, report_progress
from qhana_taskstate.context.current import enter
from qhana_taskstate.context.execution import Execution
from qhana_taskstate.database.tables.executions import execution_table
from qhana_taskstate.database.tables.log import log_table
from qhana_taskstate.errors import DatabaseUnavailableError
from qhana_taskstate.facts import ExecutionKey
from qhana_taskstate.recording.backlog import Fact
from qhana_taskstate.settings.values import setting_names
from qhana_taskstate.states import ExecutionState
from qhana_taskstate.store.closing import holds
from qhana_taskstate.store.executions import begin as executions_begin
from qhana_taskstate.store.task import jobs
from qhana_taskstate.web.serving.application import create_app
from tests.apps.jobs import add, say
from tests.contract.conftest import MakeState
from tests.waiting import wait_until

pytestmark = pytest.mark.versions

#: The test of each setting that shows that another value changes what happens, here or in another file.
SHOWN = {
    "database_url": "test_database_that_cannot_be_reached_is_named",
    "test_database_url": "test_states_of_django_tests_do_not_reach_the_database_of_development",
    "error_status": "test_task_status_is_stored_as_the_word_that_is_set",
    "wire_error_status": "test_the_wire_word_is_a_setting",
    "heartbeat_seconds": "test_lease_is_renewed_as_often_as_the_setting_says",
    "lost_after_seconds": "test_silence_counts_after_the_time_of_the_setting",
    "flush_interval_seconds": "test_reports_are_written_as_often_as_the_setting_says",
    "log_column_bytes": "test_it_holds_the_newest_lines_that_fit",
    "capture_log_level": "test_level_of_the_task_state_whose_task_runs_counts",
    "canvas_progress": "test_task_of_several_executions_counts_them_unless_the_setting_is_off",
    "hold_seconds": "test_submission_counts_as_dead_after_the_time_of_the_setting",
    "keep_facts_seconds": "test_facts_wait_as_long_as_the_setting_says",
    "publish_deadline_seconds": "test_message_nobody_begins_is_lost_after_the_publish_deadline",
    "missing_after_seconds": "test_young_messages_and_those_of_unknown_queues_are_not_looked_for",
    "prune_after_seconds": "test_automatic_pruning_is_one_of_the_chores",
    "max_redeliveries": "test_message_that_meets_its_hard_limit_every_time_is_given_up",
    "webhook_secrets": "test_each_secret_signs_in_order",
    "webhook_allowed_networks": "test_setting_allows_networks_addresses_and_names",
    "webhook_retry_schedule": "test_receiver_that_never_answers_is_tried_again",
    "webhook_timeout_seconds": "test_receiver_that_never_answers_is_tried_again",
    "webhook_min_interval_seconds": "test_details_keep_their_distance_and_others_need_none",
    "webhook_queue": "test_messages_go_to_the_queue_of_the_setting_and_belong_to_no_task",
    "public_url": "test_source_is_needed_unless_the_public_url_makes_it",
    "webhooks": "test_subscribers_are_owed_nothing_where_the_host_tells_them",
    "track": "test_setting_of_the_configuration_counts_though_it_comes_late",
    "db_id_finishes": "test_work_by_db_id_leaves_its_task_open_until_a_status_is_set",
    "web_token": "test_a_wrong_one_is_401",
    "web_files_root": "test_local_files_are_served_below_the_folder_of_the_setting_alone",
}


@pytest.fixture(scope="module")
def names_of_tests() -> frozenset[str]:
    """Names of all tests."""
    texts = (path.read_text() for path in Path(__file__).parents[1].rglob("test_*.py"))
    return frozenset(name for text in texts for name in re.findall(r"def (test_\w+)\(", text))


@pytest.mark.parametrize("name", setting_names())
def test_every_setting_is_shown_to_change_what_happens(name: str, names_of_tests: frozenset[str]) -> None:
    assert SHOWN[name] in names_of_tests


def _start_one(state: TaskState) -> None:
    state.start(say.s("x"))


def _start_a_chain(state: TaskState) -> None:
    state.start(chain(say.s("x"), say.si("y")))


def _start_a_group(state: TaskState) -> None:
    state.start(group(add.s(1, 2), add.s(3, 4)))


def _delay(state: TaskState) -> None:
    say.delay("x")


def _delay_by_name(state: TaskState) -> None:
    state.app.send_task(say.name, ["x"])


def _running(state: TaskState, other: Execution | None = None) -> Execution:
    """Make an execution that runs, of a new task or of the task of another one."""

    def begin(connection: Connection) -> Execution:
        name = "outer" if other is None else f"beside {other.name}"
        ref = jobs.take_up(connection, jobs.add_task(connection, name)).ref if other is None else other.ref
        execution = Execution(ref, key=ExecutionKey(name), name=name)
        runner = executions_begin.Runner(worker=None, host="h", pid=1, pid_started=None)
        executions_begin.begin(connection, ref, execution.key, name=name, runner=runner)
        return execution

    return state.recorder.write(begin)


def _publish_while_running(state: TaskState) -> None:
    execution = _running(state)
    leave = enter(execution)
    say.delay("x")
    leave()
    state.recorder.flush(execution)


def _publish_and_end(state: TaskState) -> None:
    execution = _running(state)
    leave = enter(execution)
    say.delay("x")
    leave()
    state.recorder.close(execution, ExecutionState.SUCCESS)


def _publish_after_the_end(state: TaskState) -> None:
    execution = _running(state)
    state.recorder.close(execution, ExecutionState.RETRY)
    leave = enter(execution)
    say.delay("x")
    leave()


@pytest.mark.parametrize(
    "publish",
    [
        _start_one,
        _start_a_chain,
        _start_a_group,
        _delay,
        _delay_by_name,
        _publish_while_running,
        _publish_and_end,
        _publish_after_the_end,
    ],
    ids=lambda publish: publish.__name__.strip("_"),
)
@pytest.mark.parametrize("seconds", [60, 86400])
def test_message_nobody_begins_is_lost_after_the_publish_deadline(
    make_state: MakeState, publish: Callable[[TaskState], None], seconds: float
) -> None:
    state = make_state(publish_deadline_seconds=seconds)

    publish(state)

    columns = execution_table.c
    with state.database.reading() as connection:
        waiting = select(columns.published_at, columns.deadline_at).where(columns.state == "QUEUED")
        rows = connection.execute(waiting).all()
    assert rows
    for row in rows:
        assert row.deadline_at - row.published_at == timedelta(seconds=seconds)


@pytest.mark.parametrize(("seconds", "renews"), [(0.1, True), (60, False)])
def test_lease_is_renewed_as_often_as_the_setting_says(make_state: MakeState, seconds: float, renews: bool) -> None:
    state = make_state(heartbeat_seconds=seconds, lost_after_seconds=200)
    execution = _running(state)
    began = _lease(state)

    state.recorder.watch(execution)

    _holds_or_not(lambda: _lease(state) > began, renews)
    state.recorder.unwatch(execution)


def _lease(state: TaskState) -> Any:
    with state.database.reading() as connection:
        return connection.execute(select(execution_table.c.heartbeat_at)).scalar_one()


def _holds_or_not(condition: Callable[[], bool], expected: bool) -> None:
    """Assert that something happens soon, or that it does not happen in several times the short value."""
    if expected:
        wait_until("it happens", condition, timeout=10)
        return
    until = time.monotonic() + 0.7
    while time.monotonic() < until:
        assert not condition()
        time.sleep(0.1)


@pytest.mark.parametrize(("seconds", "writes"), [(0.05, True), (50, False)])
def test_reports_are_written_as_often_as_the_setting_says(make_state: MakeState, seconds: float, writes: bool) -> None:
    state = make_state(flush_interval_seconds=seconds, heartbeat_seconds=60, lost_after_seconds=200)
    execution = _running(state)
    state.recorder.watch(execution)
    leave = enter(execution)
    add_log("half of it")
    leave()

    def is_written() -> bool:
        with state.database.reading() as connection:
            return "half of it" in connection.execute(select(log_table.c.text)).scalars().all()

    _holds_or_not(is_written, writes)
    state.recorder.unwatch(execution)


@pytest.mark.parametrize(("seconds", "is_lost"), [(0.3, True), (60, False)])
def test_silence_counts_after_the_time_of_the_setting(make_state: MakeState, seconds: float, is_lost: bool) -> None:
    state = make_state(heartbeat_seconds=0.1, lost_after_seconds=seconds)
    task_id = _running(state).ref.task_id

    _holds_or_not(lambda: _is_ended_by_upkeep(state, task_id), is_lost)


@pytest.mark.parametrize(("seconds", "is_dead"), [(0.2, True), (60, False)])
def test_submission_counts_as_dead_after_the_time_of_the_setting(
    make_state: MakeState, seconds: float, is_dead: bool
) -> None:
    state = make_state(hold_seconds=seconds, heartbeat_seconds=0.1)

    def submit(connection: Connection) -> int:
        ref = jobs.take_up(connection, jobs.add_task(connection, "submitted")).ref
        holds.hold(connection, ref.task_id)
        return ref.task_id

    task_id = state.recorder.write(submit)

    _holds_or_not(lambda: _is_ended_by_upkeep(state, task_id), is_dead)
    assert not is_dead or "the client died" in str(_task(task_id).task_log)


def _task(task_id: int) -> ProcessingTask:
    task = ProcessingTask.get_by_id(task_id)
    assert task is not None
    return task


def _is_ended_by_upkeep(state: TaskState, task_id: int) -> bool:
    state.upkeep()
    return _task(task_id).is_finished


@pytest.mark.parametrize(("seconds", "kept"), [(0.1, False), (60, True)])
def test_facts_wait_as_long_as_the_setting_says(
    make_state: MakeState, seconds: float, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = make_state(keep_facts_seconds=seconds)
    backlog = state.recorder.backlog
    backlog.add(Fact(1, "what happened", lambda connection: None))
    time.sleep(0.2)

    def is_away(*_: object) -> None:
        raise DatabaseUnavailableError("away")

    monkeypatch.setattr(state.database, "reading", is_away)
    backlog.catch_up()

    assert len(backlog) == kept


@pytest.mark.parametrize(("counts", "unit"), [(True, "tasks"), (False, "%")])
def test_task_of_several_executions_counts_them_unless_the_setting_is_off(
    make_state: MakeState, counts: bool, unit: str
) -> None:
    state = make_state(canvas_progress=counts)
    first = _running(state)
    second = _running(state, first)
    leave = enter(second)
    report_progress(40, target=100, unit="%")
    leave()

    state.recorder.close(first, ExecutionState.SUCCESS)
    state.recorder.close(second, ExecutionState.SUCCESS)

    assert _task(first.ref.task_id).progress_unit == unit


@pytest.mark.parametrize(("sends", "status"), [(True, 200), (False, 404)])
def test_local_files_are_served_below_the_folder_of_the_setting_alone(
    make_state: MakeState, tmp_path: Path, sends: bool, status: int
) -> None:
    (tmp_path / "a.csv").write_text("1,2")
    state = make_state(web_files_root=str(tmp_path if sends else tmp_path / "elsewhere"))
    task = ProcessingTask("writes a file")
    task.save(commit=True)
    path = str(tmp_path / "a.csv")
    file = TaskFile(task, "t" * 43, "local_filesystem", "a.csv", path, "custom", "text/csv")
    file.save(commit=True)

    answer = create_app(state).test_client().get(f"/files/{file.id}/?file-id={'t' * 43}")

    assert answer.status_code == status
    answer.close()
