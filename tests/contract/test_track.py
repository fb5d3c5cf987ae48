"""Tasks of an existing project are tracked without any change to them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery, chain, group
from celery.canvas import Signature

from qhana_taskstate import ProcessingTask, TaskState
from qhana_taskstate.testing.plugin import StartWorker
from tests.apps import existing
from tests.apps.factory import close_state
from tests.contract.conftest import count_rows
from tests.waiting import wait_until

pytestmark = pytest.mark.versions

MakeProject = Callable[..., TaskState]


@pytest.fixture
def make_project(migrated_database_url: str) -> Iterator[MakeProject]:
    """Make the app of the existing project, with a `TaskState`: `make_project(track=..., eager=True)`."""
    made: list[TaskState] = []

    def make(*, eager: bool = True, **settings: Any) -> TaskState:
        app = Celery("existing", broker="memory://", backend="cache+memory://")
        app.conf.task_always_eager = eager
        app.set_current()
        existing.add_tasks(app)
        made.append(TaskState(app, database_url=migrated_database_url, **settings))
        return made[-1]

    yield make
    for state in made:
        close_state(state)


def _row(state: TaskState, celery_id: str) -> tuple[str, str, str]:
    task = state.find(celery_id)
    assert task is not None
    return task.task_name, task.status, task.task_log.splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "args", "status", "line"),
    [
        ("reports.shared", ["x"], "SUCCESS", "x"),
        ("reports.bind", ["x"], "SUCCESS", "x 0"),
        ("reports.flaky", [], "SUCCESS", "attempt 2"),
        ("reports.hopeless", [], "ERROR", "reports.hopeless failed: ConnectionError: never"),
        ("reports.class", [3], "SUCCESS", "reports.class 3"),
        ("reports.class", [3, True], "SUCCESS", "reports.class 4"),
        ("reports.app_task", [4], "SUCCESS", "16"),
    ],
)
def test_task_sent_by_itself_is_a_job_of_its_own(
    make_project: MakeProject, name: str, args: list[Any], status: str, line: str
) -> None:
    state = make_project(track="all")

    result = state.app.tasks[name].apply_async(tuple(args))

    assert _row(state, result.id) == (name, status, line)


def test_class_keeps_its_call_and_its_kind(make_project: MakeProject) -> None:
    state = make_project(track="all")
    task = state.app.tasks["reports.class"]

    assert isinstance(task, existing.Counted)
    assert (task(1), task.delay(1).get()) == ("<reports.class 1>", "<reports.class 1>")


def test_wrong_arguments_are_refused_as_celery_does(make_project: MakeProject) -> None:
    state = make_project(track="all")
    with pytest.raises(TypeError):
        state.app.tasks["reports.app_task"].delay()
    with pytest.raises(TypeError):
        existing.shared.apply_async(("a", "b"))


def test_members_sent_inside_a_task_belong_to_it(make_project: MakeProject) -> None:
    state = make_project(track=["reports.*"])
    result = existing.parent.delay()
    assert state.find(result.get()) == state.find(result.id)


def test_names_that_are_not_selected_leave_no_rows(make_project: MakeProject) -> None:
    state = make_project(track=["reports.*", "!reports.ping"])
    before = count_rows(state)

    assert state.find(existing.ping.delay().id) is None
    assert state.find(existing.send_mail.delay().id) is None
    assert count_rows(state) == before


def test_nothing_is_tracked_by_default(make_project: MakeProject) -> None:
    state = make_project()
    before = count_rows(state)
    assert state.find(existing.shared.delay().id) is None
    assert count_rows(state) == before


@pytest.mark.parametrize("eager", [True, False], ids=["eager", "sent"])
@pytest.mark.parametrize("by", ["keyword", "position", "text"])
def test_db_id_names_the_task(make_project: MakeProject, by: str, eager: bool) -> None:
    state = make_project(track="all", eager=eager)
    task = ProcessingTask("by hand")
    task.save(commit=True)

    args = ("t", task.id) if by == "position" else ("t",)
    kwargs = {} if by == "position" else {"db_id": str(task.id) if by == "text" else task.id}
    found = state.find(existing.with_id.apply_async(args, kwargs).id)

    assert found is task
    assert task.status == ("SUCCESS" if eager else "PENDING")


@pytest.mark.parametrize("db_id", ["customers", 99999, None, [1]])
def test_db_id_that_names_no_task_is_a_job_of_its_own(make_project: MakeProject, db_id: Any) -> None:
    state = make_project(track="all")
    result = existing.with_id.delay("t", db_id)
    assert _row(state, result.id) == ("reports.with_id", "SUCCESS", f"t {db_id}")


def test_db_id_is_filled_in_where_start_knows_it(make_project: MakeProject) -> None:
    state = make_project(track="all")
    task = state.start(existing.with_id.s("t"))
    assert task.task_log == f"t {task.id}"


def test_canvases_sent_plainly_are_jobs_as_of_plugin_tasks(make_project: MakeProject) -> None:
    state = make_project(track="all", eager=False)
    members: Any = group(existing.shared.s("a"), existing.shared.s("b")).apply_async()
    tasks = [state.find(member.id) for member in members.children]
    assert len({task.id for task in tasks if task is not None}) == 2

    result: Any = chain(existing.shared.s("a"), existing.with_id.s(db_id=tasks[0].id if tasks[0] else 0)).apply_async()
    assert state.find(result.parent.id) is not None


def test_setting_of_the_configuration_counts_though_it_comes_late(make_project: MakeProject) -> None:
    state = make_project()
    state.app.finalize()
    state.app.conf.taskstate_track = ["reports.shared"]
    assert _row(state, existing.shared.delay("first").id)[1:] == ("SUCCESS", "first")
    assert _row(state, existing.shared.delay("next").id)[1:] == ("SUCCESS", "next")
    assert state.find(existing.ping.delay().id) is None


def test_task_that_is_registered_late_is_tracked(make_project: MakeProject) -> None:
    state = make_project(track="all", eager=False)
    state.app.finalize()
    assert state.settings.track == ("*",)

    @state.app.task(name="reports.late", shared=False)
    def late() -> str:
        return "late"

    assert state.find(late.delay().id) is not None


def test_task_is_plain_again_where_another_state_does_not_select_it(make_project: MakeProject) -> None:
    state = make_project(track="all")
    plain = existing.flaky
    assert state.find(plain.delay().id) is not None

    other = TaskState(state.app, database_url=state.settings.database_url)
    try:
        result = plain.delay()
        assert (result.get(), other.find(result.id)) == ("attempt 2", None)
        assert not hasattr(state.app.tasks["reports.class"], "plugin_function")
    finally:
        other.close()


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_worker_tracks_what_the_environment_names(
    migrated_database_url: str, broker_url: str, start_worker: StartWorker, pool: str
) -> None:
    env = {
        "CELERY_BROKER_URL": broker_url,
        "TASKSTATE_DATABASE_URL": migrated_database_url,
        "TASKSTATE_TRACK": "reports.*,!reports.ping,!report.typo",
    }
    worker = start_worker("tests.contract.existing_worker", env=env, pool=pool, args=["--concurrency", "2"])
    # Who sends knows the names alone.
    app = Celery("sender", broker=broker_url)
    state = TaskState(Celery("reader", broker=broker_url), database_url=migrated_database_url)
    try:
        named = ProcessingTask("by hand")
        named.save(commit=True)
        expected = {
            app.send_task("reports.shared", ["x"]).id: ("SUCCESS", "x"),
            app.send_task("reports.bind", ["x"]).id: ("SUCCESS", "x 0"),
            app.send_task("reports.flaky").id: ("SUCCESS", "attempt 2"),
            app.send_task("reports.hopeless").id: ("ERROR", "reports.hopeless failed: ConnectionError: never"),
            app.send_task("reports.class", [3]).id: ("SUCCESS", "reports.class 3"),
            app.send_task("reports.app_task", [4]).id: ("SUCCESS", "16"),
            app.send_task("reports.with_id", ["t", named.id]).id: ("SUCCESS", f"t {named.id}"),
            Signature("reports.shared", ("a",), app=app).delay().id: ("SUCCESS", "a"),
        }
        untracked = app.send_task("reports.ping").id

        for celery_id, end in expected.items():
            wait_until(f"{end} has ended", functools.partial(_ended, state, celery_id))
            assert _row(state, celery_id)[1:] == end
        assert state.find(untracked) is None
        assert "!report.typo" in worker.logs()
    finally:
        close_state(state)
        app.close()


def _ended(state: TaskState, celery_id: str) -> bool:
    task = state.find(celery_id)
    return task is not None and task.is_finished
