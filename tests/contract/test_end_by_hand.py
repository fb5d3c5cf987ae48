"""Ends that somebody sets by hand: once, and against whatever is open."""

from __future__ import annotations

import threading
import warnings
from typing import Any

import pytest
from celery import chain, group

from qhana_taskstate import ProcessingTask, StatusError, TaskFinishedError, TaskState, plugin_task, taskstate
from tests.apps.jobs import ask, fail, nothing, remember, say
from tests.contract.conftest import MakeState

pytestmark = pytest.mark.versions


@plugin_task(name="contract.end_myself")
def end_myself(word: str, raising: bool = False) -> str:
    """End the own task by hand."""
    task = taskstate.current()
    task.task_status = word
    task.save(commit=True)
    if raising:
        raise ValueError("too late")
    return "after the end"


@plugin_task(name="contract.finish_myself")
def finish_myself() -> None:
    """End the own task by `finish`."""
    taskstate.current().data["kept"] = True
    assert taskstate.finish(taskstate.current().id, log="by myself")


def read(task: ProcessingTask) -> ProcessingTask:
    row = ProcessingTask.get_by_id(task.id)
    assert row is not None
    return row


@pytest.mark.parametrize(("word", "stored"), [("SUCCESS", "SUCCESS"), ("ERROR", "ERROR"), ("FAILURE", "ERROR")])
def test_word_set_by_hand_ends_the_task_whatever_is_open(queued: TaskState, word: str, stored: str) -> None:
    task = queued.start(group(say.s(), say.s()))
    row = read(task)
    row.task_status = word
    row.save(commit=True)

    ended = queued.wait(task.id, timeout=1)
    assert (ended.status, ended.finished_at is not None) == (stored, True)
    assert queued.finish(task) is False
    assert queued.cancel(task) is False
    with pytest.raises(TaskFinishedError):
        queued.start(say.s(), task=task)


@pytest.mark.parametrize("word", ["PENDING", None])
def test_word_that_ends_nothing_keeps_the_task_open(queued: TaskState, word: Any) -> None:
    task = queued.start(say.s())
    task.task_status = word
    task.save(commit=True)
    assert not read(task).is_finished
    assert queued.finish(task)


@pytest.mark.parametrize("word", ["DONE", "success", "", 1])
def test_unknown_word_is_refused(queued: TaskState, word: Any) -> None:
    task = queued.start(say.s())
    with pytest.raises(ValueError):
        task.task_status = word
    with pytest.raises(ValueError):
        queued.finish(task, status=word)
    assert not read(task).is_finished


@pytest.mark.parametrize("status", ["PENDING", None])
def test_finish_needs_a_terminal_word(queued: TaskState, status: Any) -> None:
    task = queued.start(say.s())
    with pytest.raises(StatusError):
        queued.finish(task, status=status)


@pytest.mark.parametrize("raising", [False, True])
def test_plugin_that_ended_its_task_keeps_that_end(eager: TaskState, raising: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        task = eager.start(end_myself.s("SUCCESS", raising))
    assert task.status == "SUCCESS"


def test_rest_of_a_chain_is_not_run_after_an_end_by_hand(eager: TaskState) -> None:
    task = eager.start(chain(end_myself.si("ERROR"), remember.si("ran", True)))
    assert (task.status, task.data) == ("ERROR", {})


def test_finish_inside_the_own_execution(eager: TaskState) -> None:
    task = eager.start(finish_myself.s())
    assert (task.status, task.data, task.task_log) == ("SUCCESS", {"kept": True}, "by myself")


@pytest.mark.parametrize("call", ["finish", "cancel", "status by hand"])
def test_many_at_once_end_a_task_once(queued: TaskState, call: str) -> None:
    task = queued.start(say.s(), finishes=False)
    told: list[bool] = []

    def run(number: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if call == "finish":
                told.append(queued.finish(task.id, log=f"by {number}", status=("SUCCESS", "ERROR")[number % 2]))
            elif call == "cancel":
                told.append(queued.cancel(task.id, reason=f"by {number}"))
            else:
                with queued.session_scope():
                    row = read(task)
                    row.task_status = ("SUCCESS", "ERROR")[number % 2]
                    row.save(commit=True)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert read(task).is_finished
    if told:
        assert sorted(told) == [False] * 5 + [True]
        assert len(read(task).task_log.splitlines()) == 1


@pytest.mark.parametrize("call", ["finish", "cancel"])
def test_end_clears_an_open_step(eager: TaskState, call: str) -> None:
    task = eager.start(ask.s("k"))
    assert task.has_uncleared_step
    assert getattr(eager, call)(task)
    assert not read(task).has_uncleared_step


def test_open_ended_task_ends_only_when_told(eager: TaskState) -> None:
    task = eager.start(say.s("one"), finishes=False)
    task = eager.start(say.s("two"), task=task)
    assert not task.is_finished
    assert eager.start(nothing.s(), task=task, finishes=True).status == "SUCCESS"
    assert eager.start(fail.s(), finishes=False).status == "ERROR"


def test_task_that_nobody_gave_to_us_can_be_finished(queued: TaskState) -> None:
    task = ProcessingTask("theirs")
    task.save(commit=True)
    assert queued.finish(task.id, log="told")
    assert (read(task).status, read(task).task_log) == ("SUCCESS", "told")


@pytest.mark.databases("postgresql")
def test_cancel_does_not_wait_for_a_plugin_that_holds_the_row(make_state: MakeState) -> None:
    state = make_state()
    task = state.start(say.s())
    with state.session_scope() as session:
        row = read(task)
        row.task_name = "held"
        session.flush()
        told: list[bool] = []
        thread = threading.Thread(target=lambda: told.append(state.cancel(task.id)))
        thread.start()
        thread.join(5)
        assert told == [True]
        session.commit()
    with pytest.raises(TaskFinishedError):
        state.start(say.s(), task=task.id)
