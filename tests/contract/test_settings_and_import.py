"""Importing costs nothing, and a wrong setting is an error that names it."""

from __future__ import annotations

import base64
import subprocess
import sys
from typing import Any

import pytest
from celery import Celery

from qhana_taskstate import SettingsError, TaskState

GUARDED = """
import os, socket, sqlite3
def refuse(*args, **kwargs):
    raise AssertionError("a connection was opened")
socket.socket.connect = refuse
socket.create_connection = refuse
sqlite3.connect = refuse
import qhana_taskstate
from celery import Celery
app = Celery("x", broker="redis://127.0.0.1:1/0")
state = qhana_taskstate.TaskState(app)
repr(state)
@qhana_taskstate.plugin_task
def work() -> None: ...
work.s()
later = qhana_taskstate.TaskState()
assert not os.path.exists("taskstate.db")
try:
    later.app
except qhana_taskstate.NotConfiguredError as exc:
    assert "init_app" in str(exc)
"""


def test_import_opens_no_connection_and_needs_no_environment(pytestconfig: pytest.Config, tmp_path: Any) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", GUARDED],
        cwd=tmp_path,
        env={"PYTHONPATH": str(pytestconfig.rootpath)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ran.returncode, ran.stderr, ran.stdout) == (0, "", "")


def test_without_a_task_state_the_error_says_so(pytestconfig: pytest.Config) -> None:
    script = (
        "from qhana_taskstate import taskstate, ProcessingTask, NotConfiguredError\n"
        "for call in (lambda: taskstate.find('x'), lambda: ProcessingTask.get_by_id(1), lambda: taskstate.session):\n"
        "    try: call()\n"
        "    except NotConfiguredError as exc: assert 'TaskState' in str(exc)\n"
        "    else: raise SystemExit('no error')\n"
    )
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=pytestconfig.rootpath,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_unknown_keyword_is_named_at_once() -> None:
    with pytest.raises(SettingsError, match="databse_url"):
        TaskState(databse_url="sqlite://")


def test_unknown_setting_of_celery_is_named_at_first_use() -> None:
    app = Celery("x", set_as_current=False)
    app.conf.taskstate_databse_url = "sqlite://"
    state = TaskState(app)
    with pytest.raises(SettingsError, match="taskstate_databse_url"):
        _ = state.settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("database_url", 5),
        ("database_url", ""),
        ("database_url", "no url"),
        ("database_url", "oracel://x"),
        ("error_status", "FAILED"),
        ("wire_error_status", None),
        ("heartbeat_seconds", 0),
        ("heartbeat_seconds", "often"),
        ("heartbeat_seconds", float("nan")),
        ("heartbeat_seconds", True),
        ("heartbeat_seconds", 10**400),
        ("lost_after_seconds", -1),
        ("flush_interval_seconds", None),
        ("log_column_bytes", 1.5),
        ("capture_log_level", "LOUD"),
        ("canvas_progress", "maybe"),
        ("webhook_secrets", 5),
        ("webhook_retry_schedule", "[1,"),
        ("webhook_retry_schedule", [-1]),
    ],
)
def test_wrong_value_is_named(name: str, value: Any) -> None:
    state = TaskState(Celery("x", set_as_current=False), **{name: value})
    with pytest.raises(SettingsError, match=name):
        _ = state.database


def test_lease_shorter_than_its_heartbeat_is_refused() -> None:
    state = TaskState(Celery("x", set_as_current=False), heartbeat_seconds=30, lost_after_seconds=10)
    with pytest.raises(SettingsError, match="heartbeat"):
        _ = state.settings


SECRET = base64.b64encode(b"a secret of many bytes, in the right form").decode()


def test_secret_is_not_shown() -> None:
    state = TaskState(
        Celery("x", set_as_current=False),
        database_url="postgresql+psycopg://joe:hunter2@127.0.0.1/x",
        webhook_secrets=[f"whsec_{SECRET}"],
    )
    shown = repr(state) + repr(state.settings) + repr(state.database) + state.database.name
    assert "hunter2" not in shown
    assert SECRET not in shown
