"""Whether starting work, running it, reporting and telling subscribers calls a folder that stands higher."""

from __future__ import annotations

import re
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

import pytest
from celery.contrib.testing.worker import start_worker

import qhana_taskstate
from qhana_taskstate import TaskState, add_log, plugin_task, report_progress, taskstate
from tests.apps.factory import close_state, make_app

_FOLDER: Final = f"{Path(qhana_taskstate.__file__).parent}/"

#: Through whose frames a walk ends: what these call is a leg of its own.
_OTHERS: Final = ("/celery/", "/kombu/", "/sqlalchemy/", "/tests/")

#: What goes up on purpose: see the decision 0033.
_ON_PURPOSE: Final = re.compile(
    r"json/node\.py:\w+ -> models/changes/document\.py:\w+"
    r"|(database/engine\.py:transaction|models/listening\.py:<lambda>) -> webhooks/waking/wake_message\.py:after_commit"
    r"|database/engine\.py:read -> .*"
    r"|registry\.py:parts -> facade/assembled\.py:parts"
    r"|plugin/decorator\.py:find -> facade/assembled\.py:app"
)


@plugin_task(name="walks.report")
def report() -> str:
    """Do all that a walk begins with."""
    report_progress(50)
    add_log("half of it")
    taskstate.current().data["half"] = True
    noop.delay()
    return "done"


@plugin_task(name="walks.noop", restartable=True)
def noop() -> None:
    """Do nothing."""


class Ups:
    """Notes calls from a folder of the package into one that stands higher.

    Attributes:
        found: From where to where.
    """

    def __init__(self) -> None:
        self.found: set[str] = set()
        settings = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
        (layers,) = [found["layers"] for found in settings["tool"]["importlinter"]["contracts"] if "layers" in found]
        self._floors = {
            folder.strip(): floor for floor, layer in enumerate(reversed(layers)) for folder in re.split(r"[|:]", layer)
        }

    def _floor(self, frame: FrameType) -> int:
        path = frame.f_code.co_filename.removeprefix(_FOLDER)
        return self._floors.get(path.partition("/")[0].removesuffix(".py"), len(self._floors))

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if event != "call" or not frame.f_code.co_filename.startswith(_FOLDER):
            return
        caller = frame.f_back
        while caller is not None and not caller.f_code.co_filename.startswith(_FOLDER):
            path = caller.f_code.co_filename
            if path.startswith("<frozen") or any(name in path for name in _OTHERS):
                return
            caller = caller.f_back
        if caller is not None and self._floor(frame) > self._floor(caller):
            both = [f"{one.f_code.co_filename.removeprefix(_FOLDER)}:{one.f_code.co_name}" for one in (caller, frame)]
            self.found.add(" -> ".join(both))


@contextmanager
def noted(ups: Ups) -> Iterator[None]:
    """Note calls of this thread and of those that begin in the block."""
    threading.setprofile(ups)
    sys.setprofile(ups)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


@pytest.fixture
def state(migrated_database_url: str) -> Iterator[TaskState]:
    """A `TaskState` whose worker runs in a thread of this process."""
    app, state = make_app(
        "memory://", "cache+memory://", migrated_database_url, webhook_allowed_networks=["127.0.0.0/8"]
    )
    app.set_current()
    # What other tests left in the memory of this process.
    app.control.purge()
    yield state
    close_state(state)


@pytest.mark.databases("sqlite")
def test_no_walk_goes_back_up(state: TaskState) -> None:
    ups = Ups()
    with (
        noted(ups),
        start_worker(state.app, pool="solo", loglevel="WARNING", perform_ping_check=False, shutdown_timeout=20),
    ):
        tasks = [
            report.start(),
            state.start(
                report.si() | noop.si(), webhook_href="http://127.0.0.1:9/hook", task_href="http://127.0.0.1:9/task"
            ),
            state.start_on_commit(noop.s()),
        ]
        celery_id = noop.apply_async().id
        for task in tasks:
            assert task is not None
            state.wait(task.id, timeout=30)
        stray = state.find(celery_id)
        assert stray is not None
        state.wait(stray.id, timeout=30)
    assert sorted(up for up in ups.found if not _ON_PURPOSE.fullmatch(up)) == []
    # The walks were walked: what goes up on purpose was seen.
    assert any("document.py" in up for up in ups.found)
