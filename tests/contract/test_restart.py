"""Starting the first work of a task again, as a new task."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from celery import chain, chord, group
from celery.beat import ScheduleEntry, Scheduler
from sqlalchemy import delete, func, select

from qhana_taskstate import NotRestartableError, ProcessingTask, TaskNotFoundError, TaskState
from qhana_taskstate.database.tables.executions import message_table, work_table
from qhana_taskstate.database.tables.runner import task_table
from qhana_taskstate.reading.rows.executions import executions
from qhana_taskstate.testing.plugin import StartWorker
from qhana_taskstate.tracking.submission import kept_work
from tests.apps import jobs
from tests.apps.factory import close_state, make_app
from tests.waiting import wait_until

from .conftest import MakeState


def kept(state: TaskState) -> int:
    with state.database.reading() as connection:
        return connection.execute(select(func.count()).select_from(work_table)).scalar_one()


def test_it_is_a_new_task_that_names_the_old_one(eager: TaskState) -> None:
    old = eager.start(jobs.repeat.s("once"), task_name="repeated", parameters={"a": 1})
    new = eager.restart(old.id)
    assert new.id != old.id
    assert (new.task_name, new.parameters, new.task_log) == ("repeated", '{"a": 1}', "once")
    assert new.is_ok
    assert [(link.type, link.href) for link in new.links] == [("restart-of", f"/tasks/{old.id}/")]
    assert old.links == []


def test_the_link_is_absolute_where_the_public_url_is_known(make_state: MakeState) -> None:
    state = make_state(eager=True, public_url="https://plugin.example/base/")
    old = jobs.repeat.start("once")
    (link,) = state.restart(old).links
    assert link.href == f"https://plugin.example/base/tasks/{old.id}/"


def test_a_restarted_task_can_be_restarted(eager: TaskState) -> None:
    first = jobs.repeat.start("again")
    second = eager.restart(first)
    third = eager.restart(second)
    assert third.task_log == "again"
    assert third.links[0].href == f"/tasks/{second.id}/"


def test_a_failed_task_fails_anew(eager: TaskState) -> None:
    old = jobs.fail_again.start("on purpose")
    new = eager.restart(old)
    assert (old.status, new.status) == ("ERROR", "ERROR")


@pytest.mark.parametrize("kind", ["chain", "group", "chord", "nested"])
def test_a_canvas_is_kept_whole(eager: TaskState, kind: str) -> None:
    text = jobs.repeat.si("text")
    canvas = {
        "chain": chain(jobs.nothing.si(), text, jobs.say.s()),
        "group": group(text, jobs.say.si("other")),
        "chord": chord([text, jobs.say.si("other")], jobs.total.s()),
        "nested": chain(jobs.nothing.si(), chord([chain(text, jobs.say.s()), text], jobs.nothing.si())),
    }[kind]
    old = eager.start(canvas)
    new = eager.restart(old)
    assert new.status == old.status
    with eager.database.reading() as connection:
        names = [[view.name for view in executions(connection, task.id)] for task in (old, new)]
    assert sorted(names[0]) == sorted(names[1])
    assert names[0]


def test_messages_have_ids_of_their_own_and_options_are_kept(queued: TaskState) -> None:
    old = queued.start(jobs.repeat.s("x").set(task_id="chosen"), queue="slow", countdown=3600)
    new = queued.restart(old)
    with queued.database.reading() as connection:
        (execution,) = executions(connection, new.id)
    assert execution.celery_id != "chosen"
    assert (execution.queue, execution.eta) == ("slow", None)


def test_the_id_that_is_filled_in_is_that_of_the_new_task(eager: TaskState) -> None:
    old = eager.start(jobs.repeat.s("x"))
    assert eager.restart(old).is_ok


def test_only_the_first_work_counts(queued: TaskState) -> None:
    task = ProcessingTask("two")
    task.save(commit=True)
    queued.start(jobs.repeat.s("first"), task=task)
    queued.start(jobs.repeat.s("second"), task=task)
    assert kept(queued) == 1
    queued.app.conf.task_always_eager = True
    assert queued.restart(task).task_log == "first"


def test_what_did_not_say_so_is_not_kept_and_the_error_says_what_to_add(eager: TaskState) -> None:
    task = jobs.say.start("x")
    assert kept(eager) == 0
    with pytest.raises(NotRestartableError, match=r"restartable=True"):
        eager.restart(task)
    with pytest.raises(TaskNotFoundError):
        eager.restart(99)


def test_it_goes_with_its_task(eager: TaskState) -> None:
    jobs.repeat.start("x")
    assert kept(eager) == 1
    eager.prune(timedelta(0))
    assert kept(eager) == 0


@pytest.mark.parametrize("how", ["delay", "apply_async", "by name", "first of a chain", "named by what comes later"])
def test_work_sent_the_plain_way_is_kept_when_it_is_published(queued: TaskState, how: str) -> None:
    send: dict[str, Callable[[], Any]] = {
        "delay": lambda: jobs.repeat.delay("x"),
        "apply_async": lambda: jobs.repeat.apply_async(["x"], queue="slow", priority=3, countdown=60, task_id="chosen"),
        "by name": lambda: queued.app.send_task("tests.apps.jobs.repeat", ["x"]),
        "first of a chain": lambda: chain(jobs.repeat.s("x"), jobs.say.s()).apply_async().parent,
        "named by what comes later": lambda: chain(jobs.say.s("x"), jobs.repeat.s()).apply_async().parent,
    }
    old = queued.find(send[how]().id)
    assert old is not None
    assert kept(queued) == 1
    queued.app.conf.task_always_eager = True

    new = queued.restart(old)

    assert (new.status, set(new.task_log.splitlines()), new.links[0].type) == ("SUCCESS", {"x"}, "restart-of")
    with queued.database.reading() as connection:
        assert len(executions(connection, new.id)) == (2 if "chain" in how or "later" in how else 1)


def test_options_of_a_message_are_kept_and_its_moment_is_not(queued: TaskState) -> None:
    jobs.repeat.apply_async(["x"], queue="slow", priority=3, countdown=3600, task_id="chosen", time_limit=9)
    old = queued.find("chosen")
    assert old is not None
    new = queued.restart(old)
    with queued.database.reading() as connection:
        (execution,) = executions(connection, new.id)
    assert execution.celery_id != "chosen"
    assert (execution.queue, execution.eta) == ("slow", None)
    canvas, _ = kept_work.work_of(queued.app, queued.database, new.id)
    assert canvas.options == {"queue": "slow", "priority": 3, "time_limit": 9}


@pytest.mark.parametrize("given", [int, str])
def test_db_id_of_a_message_becomes_that_of_the_new_task(queued: TaskState, given: Callable[[int], Any]) -> None:
    old = ProcessingTask("with id")
    old.save(commit=True)
    (jobs.repeat_id.s("x", db_id=given(old.id)) | jobs.with_id.si("y", db_id=given(old.id))).apply_async()
    queued.app.conf.task_always_eager = True

    new = queued.restart(old)

    assert new.task_log.splitlines() == [f"x {new.id}", f"y {new.id}"]
    assert old.task_log == ""


def test_db_id_that_start_was_given_becomes_that_of_the_new_task(eager: TaskState) -> None:
    old = ProcessingTask("with id")
    old.save(commit=True)
    eager.start(jobs.repeat_id.s("x", db_id=old.id), task=old)
    new = eager.restart(old)
    assert new.task_log == f"x {new.id}"


def test_only_the_first_message_of_a_task_is_kept(queued: TaskState) -> None:
    task = ProcessingTask("two")
    task.save(commit=True)
    for text in ("first", "second"):
        jobs.repeat_id.apply_async([text], {"db_id": task.id})
    assert kept(queued) == 1
    queued.app.conf.task_always_eager = True
    new = queued.restart(task)
    assert new.task_log == f"first {new.id}"


def test_work_sent_the_plain_way_goes_with_its_task_and_is_kept_only_where_it_says_so(eager: TaskState) -> None:
    jobs.say.delay("x")
    assert kept(eager) == 0
    jobs.repeat.delay("x")
    assert kept(eager) == 1
    eager.prune(timedelta(0))
    assert kept(eager) == 0


def test_work_that_cannot_be_written_is_run_and_told(eager: TaskState, caplog: pytest.LogCaptureFixture) -> None:
    result = jobs.nothing_with.apply([object()])
    assert result.successful()
    assert kept(eager) == 0
    assert "the work of tests.apps.jobs.nothing_with cannot be kept" in caplog.text


def test_members_of_a_group_are_kept_each_for_its_own_task(queued: TaskState) -> None:
    chord([jobs.repeat.s("a"), jobs.repeat.s("b")])(jobs.total.s())
    assert kept(queued) == 2
    queued.app.conf.task_always_eager = True
    with queued.database.reading() as connection:
        ids = connection.execute(select(work_table.c.task_id)).scalars().all()
    assert sorted(str(queued.restart(task_id).task_log) for task_id in ids) == ["a", "b"]


def test_row_that_was_deleted_behind_our_back_leaves_no_work_to_the_next_one(eager: TaskState) -> None:
    old_id = jobs.repeat.start("old").id
    eager.session.expunge_all()
    with eager.database.transaction() as connection:
        connection.execute(delete(task_table).where(task_table.c.id == old_id))
    new = ProcessingTask("new")
    new.id = old_id
    eager.start(jobs.repeat.s("new"), task=new)
    assert eager.restart(new).task_log == "new"


def test_no_message_is_kept_for_it(queued: TaskState) -> None:
    jobs.repeat.start("x")
    with queued.database.reading() as connection:
        assert connection.execute(select(func.count()).select_from(message_table)).scalar_one() == 0


@pytest.mark.versions
def test_worker_keeps_what_nobody_saw_at_its_publishing(
    migrated_database_url: str, broker_url: str, start_worker: StartWorker
) -> None:
    env = {"CELERY_BROKER_URL": broker_url, "TASKSTATE_DATABASE_URL": migrated_database_url}
    start_worker("tests.apps.worker", env=env, pool="threads", args=["--concurrency", "2", "-Q", "jobs,slow"])
    app, state = make_app(broker_url, None, migrated_database_url)
    app.set_current()
    # As in a client that has not imported the plugins.
    repeat, repeat_id, say = (str(task.name) for task in (jobs.repeat, jobs.repeat_id, jobs.say))
    for name in (repeat, repeat_id, say):
        app.tasks.pop(name)
    try:
        named = ProcessingTask("named")
        named.save(commit=True)
        with state.detached():
            entry = ScheduleEntry(name="nightly", task=repeat, args=("beat",), app=app)
            by_name: Any = chain(app.signature(repeat, ["chain"]), app.signature(say))
            sent = {
                "beat": Scheduler(app, lazy=True).apply_async(entry, advance=False).id,
                "name": app.send_task(repeat, ["name"], queue="slow").id,
                "chain": by_name.apply_async().parent.id,
                "id": app.send_task(repeat_id, ["id"], {"db_id": str(named.id)}).id,
            }
        started = state.start(app.signature(repeat, ["start"]))
        wait_until("all have tasks", lambda: all(map(state.find, sent.values())))
        tasks = {text: state.find(celery_id) for text, celery_id in sent.items()} | {"start": started}
        assert tasks["id"] == named
        for text, old in tasks.items():
            assert old is not None
            state.wait(old, timeout=20)
            new = state.wait(state.restart(old), timeout=20)
            lines = {f"id {new.id}"} if text == "id" else {text}
            assert (new.status, set(new.task_log.splitlines())) == ("SUCCESS", lines)
    finally:
        close_state(state)
