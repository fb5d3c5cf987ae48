"""The command that examines a set-up, on a real one."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery
from celery.bin.base import CLIContext
from click.testing import CliRunner, Result
from sqlalchemy import func, select, update

from qhana_taskstate import ProcessingTask, TaskState
from qhana_taskstate.cli.group import taskstate as command_group
from qhana_taskstate.clock import now
from qhana_taskstate.database.tables.executions import execution_table
from qhana_taskstate.database.tables.jobs import job_table
from qhana_taskstate.store.task import jobs
from qhana_taskstate.testing.waiting import wait_until
from qhana_taskstate.upkeep import leader
from tests.parts.deployment import Deployment

#: Nobody listens there, and the passwords must not be seen.
DEAD_BROKER = "redis://:br0kerpass@127.0.0.1:1/0"
DEAD_DATABASE = "postgresql+psycopg://me:dat4basepass@127.0.0.1:1/db"


def doctor(app: Celery, *args: str) -> Result:
    app.set_current()
    context = CLIContext(app=app, no_color=True, workdir=".", quiet=False)
    return CliRunner().invoke(command_group, ["doctor", *args], obj=context)


def findings(app: Celery, *args: str) -> dict[str, dict[str, Any]]:
    result = doctor(app, "--json", *args)
    found = json.loads(result.stdout)
    assert result.exit_code == (0 if all(finding["ok"] for finding in found) else 1)
    return {finding["check"]: finding for finding in found}


@pytest.fixture
def examined(deployment: Deployment) -> Deployment:
    """A deployment whose upkeep has begun."""

    def looked() -> bool:
        with deployment.taskstate.database.reading() as connection:
            seen = leader.glance(connection)
        return seen.idle or seen.until is not None

    wait_until("somebody does the chores", looked, timeout=30)
    return deployment


def test_healthy_deployment_is_well_and_the_probe_leaves_nothing(examined: Deployment) -> None:
    def count() -> tuple[int, ...]:
        with examined.taskstate.database.reading() as connection:
            tables = (ProcessingTask.__table__, job_table, execution_table)
            return tuple(connection.execute(select(func.count()).select_from(table)).scalar_one() for table in tables)

    before = count()
    # The tasks of this app acknowledge late on purpose, in several ways.
    found = findings(examined.app)
    wrong = {name: finding for name, finding in found.items() if not finding["ok"]}

    assert set(wrong) <= {"time limits", "late acknowledgement"}
    assert {"schema", "clock", "webhook queue", "heartbeats", "upkeep", "deliveries", "silent tasks", "probe"} <= set(
        found
    )
    assert count() == before


def test_text_says_what_to_change(examined: Deployment) -> None:
    result = doctor(examined.app, "--no-probe")

    assert "ok     schema: version" in result.stdout
    assert "probe" not in result.stdout


def test_webhook_queue_without_a_worker_is_told(examined: Deployment) -> None:
    app = Celery("jobs", broker=examined.broker_url, include=[])
    app.conf.task_default_queue = "jobs"
    state = TaskState(app, database_url=examined.database_url, webhook_queue="hooks")
    try:
        found = findings(app, "--no-probe")
    finally:
        state.close()
        app.close()
        examined.app.set_current()

    assert not found["webhook queue"]["ok"]
    assert "-Q hooks" in found["webhook queue"]["advice"]


def test_forgotten_task_is_told(examined: Deployment) -> None:
    task = ProcessingTask("forgotten")
    task.save(commit=True)
    with examined.taskstate.database.transaction() as connection:
        jobs.take_up(connection, task.id)
        long_ago = now() - timedelta(hours=2)
        connection.execute(update(job_table).where(job_table.c.task_id == task.id).values(created_at=long_ago))
    try:
        found = findings(examined.app, "--no-probe")
    finally:
        examined.taskstate.finish(task.id)

    assert str(task.id) in found["silent tasks"]["seen"]
    assert findings(examined.app, "--no-probe")["silent tasks"]["ok"]


def test_probe_that_no_worker_takes_is_told_and_ended(examined: Deployment) -> None:
    app = Celery("jobs", broker=examined.broker_url, include=[])
    app.conf.task_default_queue = "nobody_consumes_this"
    state = TaskState(app, database_url=examined.database_url, webhook_queue="jobs")
    try:
        found = findings(app, "--timeout", "1.5")
        status = ProcessingTask.get_by_id(max(_ids(state)))
    finally:
        state.close()
        app.close()
        examined.app.set_current()

    assert "did not come back" in found["probe"]["seen"]
    assert status is not None
    assert status.status == "ERROR"


def _ids(state: TaskState) -> list[int]:
    with state.database.reading() as connection:
        return list(connection.execute(select(ProcessingTask.id)).scalars())


def test_database_and_broker_that_are_away_are_findings_without_passwords() -> None:
    app = Celery("jobs", broker=DEAD_BROKER)
    TaskState(app, database_url=DEAD_DATABASE)
    try:
        found = findings(app)
        text = doctor(app)
    finally:
        app.close()

    assert (found["database"]["ok"], found["broker"]["ok"]) == (False, False)
    for told in (json.dumps(found), text.output):
        assert "br0kerpass" not in told
        assert "dat4basepass" not in told
    assert "WRONG  database" in text.stdout


def test_database_without_tables_is_told_what_to_run(tmp_path: Any) -> None:
    app = Celery("jobs", broker=DEAD_BROKER)
    state = TaskState(app, database_url=f"sqlite:///{tmp_path / 'empty.db'}")
    try:
        found = findings(app)
    finally:
        state.close()
        app.close()

    assert found["schema"]["seen"] == "the tables are missing"
    assert "upgrade" in found["schema"]["advice"]
