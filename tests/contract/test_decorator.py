"""`plugin_task`: bare, with options, under host code that never heard of it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import flask
import pytest
from celery import Task

from qhana_taskstate import ArgumentsError, NotInExecutionError, TaskState, plugin_task, taskstate
from tests.apps.jobs import say
from tests.contract.conftest import count_rows

pytestmark = pytest.mark.versions

WEB = flask.Flask("base")


class ContextTask(Task):  # type: ignore[type-arg]
    """What Flask's documentation shows: runs a task in an app context."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with WEB.app_context():
            return self.run(*args, **kwargs)


@plugin_task(name="contract.in_context", base=ContextTask, bind=True)
def in_context(self: Any, key: str) -> str:
    """Change data in an app context."""
    assert flask.has_app_context()
    self.processing_task.data[key] = True
    return "in a context"


@plugin_task(name="contract.retry_in_context", base=ContextTask, bind=True, max_retries=2)
def retry_in_context(self: Any) -> None:
    """Change data and retry."""
    self.processing_task.data[f"attempt {self.request.retries}"] = True
    if self.request.retries < 1:
        raise self.retry(countdown=0)


@plugin_task(name="contract.stored", store_parameters=True)
def stored(a: int, b: str = "x", *, c: Any = None) -> None:
    """Has its parameters stored."""


@plugin_task(name="contract.variadic")
def variadic(*args: Any, **kwargs: Any) -> str:
    """Takes everything."""
    return json.dumps([args, kwargs])


@plugin_task(name="contract.autoretry", bind=True, autoretry_for=(ConnectionError,), max_retries=2, retry_backoff=False)
def autoretry(self: Any) -> None:
    """Fail once."""
    if self.request.retries < 1:
        raise ConnectionError("once")


@plugin_task(name="contract.gives_up", bind=True, max_retries=1)
def gives_up(self: Any, limit: int | None) -> None:
    """Change data and retry, until there is no attempt left."""
    self.processing_task.data[f"attempt {self.request.retries}"] = True
    raise self.retry(exc=ConnectionError("away"), countdown=0, max_retries=limit)


@pytest.mark.parametrize(("limit", "kept"), [(None, ["attempt 0"]), (2, ["attempt 0", "attempt 1"]), (0, [])])
def test_retry_commits_only_what_comes_before_another_attempt(
    eager: TaskState, limit: int | None, kept: list[str]
) -> None:
    task = eager.start(gives_up.s(limit))

    assert task.status == "ERROR"
    assert list(task.data) == kept


def test_name_options_and_docstring_are_those_of_the_function(queued: TaskState) -> None:
    assert say.name == "tests.apps.jobs.say"
    assert say.__doc__ == "Return a text."
    assert autoretry.max_retries == 2


def test_name_given_by_position_is_told() -> None:
    with pytest.raises(TypeError, match="name="):
        plugin_task("oops")  # type: ignore[call-overload]


def test_base_class_of_the_host_is_kept(eager: TaskState) -> None:
    task = eager.start(in_context.s("k"))
    assert (task.status, task.data, task.task_log) == ("SUCCESS", {"k": True}, "in a context")
    assert eager.start(retry_in_context.s()).status == "SUCCESS"


def test_task_class_of_the_app_is_kept(eager: TaskState) -> None:
    assert isinstance(say._get_current_object(), eager.app.Task)  # type: ignore[attr-defined]


def test_autoretry_ends_once_and_well(eager: TaskState) -> None:
    assert eager.start(autoretry.s()).status == "SUCCESS"


def test_parameters_are_stored_when_asked_for(queued: TaskState) -> None:
    assert json.loads(stored.start(1, b="y").parameters) == {"a": 1, "b": "y"}
    assert queued.start(stored.s(1), parameters="mine").parameters == "mine"
    assert say.start("secret").parameters == ""


@pytest.mark.parametrize("arguments", [((), {}), ((1, 2, 3), {}), ((1,), {"d": 1}), ((1,), {"countdown": 5})])
def test_start_takes_the_functions_own_arguments_only(queued: TaskState, arguments: Any) -> None:
    args, kwargs = arguments
    before = count_rows(queued)
    with pytest.raises(ArgumentsError, match=r"contract\.stored"):
        stored.start(*args, **kwargs)
    assert count_rows(queued) == before


@pytest.mark.parametrize("send", ["delay", "apply_async"])
def test_plain_call_with_wrong_arguments_is_a_type_error(queued: TaskState, send: str) -> None:
    before = count_rows(queued)
    with pytest.raises(TypeError):
        stored.delay() if send == "delay" else stored.apply_async((1, 2, 3))  # type: ignore[call-arg]
    assert count_rows(queued) == before


def test_function_that_takes_everything(eager: TaskState) -> None:
    task = variadic.start(1, x=2)
    assert task.task_log == '[[1], {"x": 2}]'


def test_direct_call_is_a_function_call(queued: TaskState) -> None:
    before = count_rows(queued)
    assert say("plain") == "plain"
    assert count_rows(queued) == before
    with pytest.raises(NotInExecutionError):
        in_context("k")
    with pytest.raises(NotInExecutionError):
        taskstate.current()


UNIT_TEST = """
from qhana_taskstate import add_log, plugin_task, report_progress, track

@plugin_task
def double(values: list) -> str:
    add_log("begin")
    report_progress(0)
    return str([2 * value for value in track(values)])

@plugin_task(bind=True, name="own")
def bound(self, value):
    return value + 1

assert double([1, 2]) == "[2, 4]"
assert bound(1) == 2
"""


def test_plugin_functions_can_be_unit_tested_without_an_app(pytestconfig: pytest.Config) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", UNIT_TEST],
        cwd=pytestconfig.rootpath,
        env={"PYTHONPATH": str(pytestconfig.rootpath)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
