"""The command that removes old tasks."""

from __future__ import annotations

import json

import pytest
from celery import Celery
from sqlalchemy import update

from qhana_taskstate import ProcessingTask, TaskState
from qhana_taskstate.clock import now
from qhana_taskstate.testing.plugin import RunCelery

APP = ("-A", "tests.apps.worker", "taskstate")


def a_finished_task(url: str) -> None:
    app = Celery("client", set_as_current=True)
    taskstate = TaskState(app, database_url=url)
    task = ProcessingTask("old")
    task.save(commit=True)
    taskstate.finish(task.id)
    task = ProcessingTask("pending")
    task.save(commit=True)
    row = ProcessingTask.__table__
    with taskstate.database.transaction() as connection:
        connection.execute(update(row).where(row.c.finished_at.is_not(None)).values(finished_at=now()))
    taskstate.close()
    app.close()


def test_prune_says_what_it_did(run_celery: RunCelery, migrated_database_url: str) -> None:
    a_finished_task(migrated_database_url)

    counted = run_celery(*APP, "prune", "--older-than", "0s", "--dry-run")
    removed = run_celery(*APP, "prune", "--older-than", "0s", "--json")
    listed = run_celery(*APP, "list", "--json")

    assert counted.stdout == "1 task would be removed; 0 output files are reported to the application\n"
    told = {"tasks": 1, "outputs": 0, "open": 0, "pending": 0, "busy": 0, "referenced": 0, "dry_run": False}
    assert json.loads(removed.stdout) == told
    assert [task["id"] for task in json.loads(listed.stdout)] == [2]


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("age", ["30", "d", "-1d", "1y", "thirty days", "", "nan", "9" * 400 + "d"])
def test_age_that_makes_no_sense_is_refused(run_celery: RunCelery, migrated_database_url: str, age: str) -> None:
    refused = run_celery(*APP, "prune", f"--older-than={age}")

    assert refused.returncode == 2
    assert "30d" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.databases("sqlite")
def test_age_is_needed(run_celery: RunCelery, migrated_database_url: str) -> None:
    refused = run_celery(*APP, "prune")

    assert refused.returncode == 2
    assert "--older-than" in refused.stderr
