"""Plugins of the runner in real workers, with threads as the runner has them, and prefork."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from qhana_taskstate.testing.plugin import StartWorker
from tests.apps.runner import core, plugins, tasks
from tests.apps.runner import models as runner_models
from tests.qhana.conftest import MakeRunner
from tests.waiting import wait_until

#: Ours have taken their place, which a type checker cannot know.
models: Any = runner_models

#: Settings that let silence count soon.
SOON = {
    "TASKSTATE_HEARTBEAT_SECONDS": "0.3",
    "TASKSTATE_LOST_AFTER_SECONDS": "1.5",
    "TASKSTATE_HOLD_SECONDS": "1.5",
    "TASKSTATE_FLUSH_INTERVAL_SECONDS": "0.1",
}

StartRunner = Callable[..., Any]


@pytest.fixture
def start_runner(
    make_runner: MakeRunner, taskstate_database_url: str, broker_url: str, start_worker: StartWorker, tmp_path: Any
) -> Iterator[StartRunner]:
    """Make the app and its tables here, and start a worker: `start_runner(pool="threads")`."""
    make_runner(taskstate_database_url, celery={"broker_url": broker_url})
    core.DB.create_all()
    environment = {
        **SOON,
        "RUNNER_DATABASE_URL": taskstate_database_url,
        "RUNNER_BROKER_URL": broker_url,
        "RUNNER_FOLDER": str(tmp_path),
    }

    def start(pool: str = "threads", concurrency: int = 4) -> Any:
        return start_worker("tests.apps.runner.worker", pool=pool, concurrency=concurrency, env=environment)

    yield start


def new_task(**values: Any) -> Any:
    """Save a task, as a route does."""
    task: Any = models.ProcessingTask("plugin", **values)
    task.save(commit=True)
    return task


def ended(task: Any, status: str) -> Any:
    """Wait until a task has ended so, and return it."""

    def found() -> Any:
        core.DB.session.rollback()
        return type(task).get_by_id(task.id)

    wait_until(f"task {task.id} is {status}", lambda: found().status == status, timeout=20)
    return found()


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_plugins_are_tracked_without_an_edit(start_runner: StartRunner, pool: str) -> None:
    start_runner(pool)

    good = new_task(parameters="world")
    canvas: Any = plugins.hello.s(db_id=good.id) | tasks.save_task_result.s(db_id=good.id)
    canvas.link_error(tasks.save_task_error.s(db_id=good.id))
    canvas.apply_async()

    bad = new_task()
    canvas = plugins.fail.s(db_id=bad.id) | tasks.save_task_result.s(db_id=bad.id)
    canvas.link_error(tasks.save_task_error.s(db_id=bad.id))
    canvas.apply_async()

    assert ended(good, "SUCCESS").task_log == "hello world"
    found = ended(bad, "FAILURE")
    assert found.task_log == f"plugins.fail failed: LookupError: nothing for {bad.id}"
