"""Whoever makes or drops the tables, the host's ways and ours agree on them."""

from __future__ import annotations

from typing import Any

import pytest
from alembic import command
from flask import Flask
from sqlalchemy import inspect

from qhana_taskstate import registry
from qhana_taskstate.database import schema
from qhana_taskstate.qhana.install import HostedTaskState
from tests.apps.runner import core
from tests.apps.runner import models as runner_models
from tests.qhana.conftest import MakeRunner

#: Ours have taken their place, which a type checker cannot know.
models: Any = runner_models


def _do(app: Flask, way: str) -> None:
    match way:
        case "create_all":
            core.DB.create_all()
        case "drop_all":
            core.DB.drop_all()
        case "db upgrade":
            command.upgrade(core.MIGRATE.get_config(), "head")
        case "taskstate upgrade":
            _state().upgrade()


def _state() -> HostedTaskState:
    found = registry.find(core.CELERY)
    assert isinstance(found, HostedTaskState)
    return found


def _check() -> None:
    """Do what `flask db check` does."""
    command.check(core.MIGRATE.get_config())


def _tables() -> set[str]:
    return set(inspect(core.DB.engine).get_table_names())


@pytest.mark.parametrize(
    "ways",
    [
        ("db upgrade", "taskstate upgrade"),
        ("taskstate upgrade", "db upgrade"),
        ("create_all",),
        ("create_all", "db upgrade", "taskstate upgrade"),
        ("create_all", "taskstate upgrade", "db upgrade"),
        ("db upgrade", "create_all", "taskstate upgrade"),
        ("taskstate upgrade", "create_all", "db upgrade"),
        ("create_all", "drop_all", "db upgrade", "taskstate upgrade"),
        ("taskstate upgrade", "drop_all", "create_all", "taskstate upgrade", "db upgrade"),
        ("db upgrade", "drop_all", "taskstate upgrade"),
    ],
)
def test_ways_to_make_tables_agree(make_runner: MakeRunner, taskstate_database_url: str, ways: tuple[str, ...]) -> None:
    app = make_runner(taskstate_database_url)
    for way in ways:
        _do(app, way)
    _check()
    assert _tables() >= set(core.DB.metadata.tables)
    task: Any = models.ProcessingTask("saved")
    core.DB.session.add(models.Note("kept", task=task))
    core.DB.session.commit()
    assert schema.current_revision(_state().database) == schema.known_revisions()[-1]

    _do(app, "drop_all")
    assert _tables() <= {"alembic_version"}
