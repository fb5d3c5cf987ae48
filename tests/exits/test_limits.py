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


def test_hard_limit_is_booked_on_the_attempt_that_met_it_not_on_the_one_that_waits(deploy_exits: DeployExits) -> None:
    with deploy_exits("sqlite") as deployment:
        hangs_after_retry = {"body": "retry later", "on_retry": "sleep"}
        work = signature("tests.apps.exits.strictly", kwargs=hangs_after_retry, app=deployment.app)
        task_id = deployment.taskstate.start(work).id

        wait_until("it has ended", lambda: _get(task_id).finished_at is not None, timeout=20)
        wait_until("both attempts are closed", deployment.all_settled, timeout=20)

        errors = {row.retries: (row.state, row.error_type) for row in deployment.executions(task_id)}
        assert errors[0] == ("FAILURE", "TimeLimitExceeded")
        assert errors[1][1] != "TimeLimitExceeded"


def _get(task_id: int) -> ProcessingTask:
    task = ProcessingTask.get_by_id(task_id)
    assert task is not None
    return task
