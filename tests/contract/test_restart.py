"""Starting the first work of a task again, as a new task."""

from __future__ import annotations

from datetime import timedelta

import pytest
from celery import chain, chord, group
from sqlalchemy import func, select

from qhana_taskstate import NotRestartableError, ProcessingTask, TaskNotFoundError, TaskState
from qhana_taskstate.database.tables.executions import message_table, work_table
from qhana_taskstate.reading.rows.executions import executions
from tests.apps import jobs

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


def test_no_message_is_kept_for_it(queued: TaskState) -> None:
    jobs.repeat.start("x")
    with queued.database.reading() as connection:
        assert connection.execute(select(func.count()).select_from(message_table)).scalar_one() == 0
