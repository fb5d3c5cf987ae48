"""The canvases of the runner's plugins in real workers, with threads as the runner has them, and prefork."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qhana_taskstate import registry
from qhana_taskstate.testing.plugin import StartWorker
from tests.apps.runner import core, plugins, routes, tasks
from tests.qhana.conftest import MakeRunner
from tests.waiting import wait_until

#: Settings that let silence count soon.
SOON = {"heartbeat_seconds": 0.3, "lost_after_seconds": 1.5, "hold_seconds": 1.5, "flush_interval_seconds": 0.1}

PATTERNS = range(1, 9)

StartRunner = Callable[..., Any]


@pytest.fixture
def start_runner(
    make_runner: MakeRunner, taskstate_database_url: str, broker_url: str, start_worker: StartWorker, tmp_path: Path
) -> StartRunner:
    """Make the app and its tables here, and start a worker: `start_runner(pool="threads")`."""
    make_runner(taskstate_database_url, celery={"broker_url": broker_url}, **SOON)
    core.DB.create_all()
    environment = {
        **{f"TASKSTATE_{name.upper()}": str(value) for name, value in SOON.items()},
        "RUNNER_DATABASE_URL": taskstate_database_url,
        "RUNNER_BROKER_URL": broker_url,
        "RUNNER_FOLDER": str(tmp_path),
    }

    def start(pool: str = "threads", concurrency: int = 16) -> Any:
        return start_worker("tests.apps.runner.worker", pool=pool, concurrency=concurrency, env=environment)

    return start


def read(task: Any) -> Any:
    """Read a task as it is now."""
    core.DB.session.rollback()
    return plugins.load(task.id)


def until(task: Any, what: str, reached: Callable[[Any], Any]) -> Any:
    """Wait until something holds of a task, and return it."""
    wait_until(f"task {task.id} is {what}", lambda: reached(read(task)), timeout=20)
    return read(task)


def ended(task: Any, status: str) -> Any:
    """Wait until a task has ended, and make sure that it ended so."""
    found = until(task, "ended", lambda now: now.is_finished)
    assert found.status == status, found.task_log
    return found


def at_step(task: Any, count: int = 1) -> Any:
    """Wait until a task has so many steps, of which the last is open."""
    return until(task, f"at step {count}", lambda now: len(now.steps) == count and now.has_uncleared_step)


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_eight_canvases_end_as_they_should_without_an_edit(
    start_runner: StartRunner, pool: str, tmp_path: Path
) -> None:
    start_runner(pool, 4)
    one, two, three, four, five, six, seven, eight = (routes.start(number) for number in PATTERNS)
    bad = routes.new()
    routes.send(plugins.fail.s(db_id=bad.id) | tasks.save_task_result.s(db_id=bad.id), bad)

    foreign = plugins.load(one.data["foreign"])
    at_step(one)
    routes.answer(1, at_step(one))  # a webhook that comes twice shows the same step once
    foreign.clear_previous_step(commit=True)
    foreign.task_status = "SUCCESS"
    foreign.save(commit=True)
    routes.answer(1, read(one))
    routes.answer(4, at_step(four))
    routes.answer(4, at_step(four, 2))
    routes.answer(8, at_step(eight), "second")
    routes.answer(8, at_step(eight, 2), "done")

    assert ended(one, "SUCCESS").task_log.endswith("the other is SUCCESS")
    assert ended(two, "SUCCESS").task_log == "all 3"
    assert ended(three, "SUCCESS").task_log == "watched"
    assert ended(four, "SUCCESS").task_log == "the job is done"
    assert ended(five, "SUCCESS").task_log == "after deployed"
    assert ended(six, "SUCCESS").task_log == "copied"
    assert ended(seven, "FAILURE").task_log == "plugins.instance failed: LookupError: the instance is gone"
    wait_until("the outside was told", (tmp_path / f"told-{seven.id}").exists)
    assert (tmp_path / f"told-{seven.id}").read_text() == "the instance is gone"
    found = ended(eight, "SUCCESS")
    assert found.data == {"answers": ["first", "second", "done"]}
    assert found.task_log.splitlines() == ["took first", "took second", "took done"]
    assert ended(bad, "FAILURE").task_log == f"plugins.fail failed: LookupError: nothing for {bad.id}"


def test_killed_worker_ends_each_of_the_eight_canvases_as_failed(start_runner: StartRunner, tmp_path: Path) -> None:
    worker = start_runner()
    held = {number: routes.start(number, data={"hold": True}) for number in PATTERNS}
    routes.answer(4, at_step(held[4]))
    routes.answer(4, at_step(held[4], 2))
    wait_until(
        "all stand still in the middle",
        lambda: all((tmp_path / f"middle-{task.id}").exists() for task in held.values()),
        timeout=20,
    )
    worker.kill()
    state = registry.get()

    def settled() -> bool:
        state.upkeep()
        return all(read(task).is_finished for task in held.values())

    wait_until("all have ended", settled, timeout=20)
    for number, task in held.items():
        found = read(task)
        assert (number, found.status) == (number, "FAILURE")
        assert "was lost while it ran" in found.task_log, (number, found.task_log)
        assert not found.has_uncleared_step
