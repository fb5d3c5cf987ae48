"""Soft limits that strike while our own part runs, and executions that nobody tells of any more."""

from __future__ import annotations

import pytest
from celery import signature

from qhana_taskstate import ProcessingTask
from tests.exits.conftest import DeployExits
from tests.waiting import wait_until


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_tasks_that_end_when_their_soft_limit_strikes_all_end(deploy_exits: DeployExits, kind: str) -> None:
    with deploy_exits(kind, concurrency=4) as deployment:
        started = [
            deployment.taskstate.start(
                signature("tests.apps.exits.near_its_limit", args=(0.95 + 0.003 * number,), app=deployment.app)
            ).id
            for number in range(24)
        ]

        def open_tasks() -> list[int]:
            return [task_id for task_id in started if _get(task_id).finished_at is None]

        wait_until("all have ended", lambda: not open_tasks(), timeout=30)
        assert deployment.all_settled()


def _get(task_id: int) -> ProcessingTask:
    task = ProcessingTask.get_by_id(task_id)
    assert task is not None
    return task
