"""Importing costs nothing, and a wrong setting is an error that names it."""

from __future__ import annotations

import base64
import subprocess
import sys
from typing import Any

import pytest
from celery import Celery

import qhana_taskstate
from qhana_taskstate import SettingsError, TaskState
from qhana_taskstate.facade import late
from qhana_taskstate.testing.plugin import RunCelery

pytestmark = pytest.mark.versions

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


#: What takes long to import, and only some processes need.
USED = {"http.client", "ssrfguard", "qhana_taskstate.upkeep"}
HEAVY = USED | {"alembic", "rich", "flask", "psycopg", "qhana_taskstate.cli"}
IMPORTED = "import sys; from celery import Celery; from qhana_taskstate import TaskState; {}; print(*sys.modules)"


@pytest.mark.parametrize(
    ("use", "needed"),
    [
        ("...", set()),
        ("TaskState(Celery('x')).settings", USED),
        ("TaskState(Celery('x'), database_url='sqlite://').upgrade()", USED | {"alembic"}),
    ],
)
def test_what_takes_long_to_import_is_imported_by_whoever_needs_it(
    pytestconfig: pytest.Config, use: str, needed: set[str]
) -> None:
    command = [sys.executable, "-c", IMPORTED.format(use)]
    environment = {"PYTHONPATH": str(pytestconfig.rootpath)}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert HEAVY.intersection(ran.stdout.split()) == needed


def test_what_is_imported_late_is_there_under_its_name() -> None:
    for name in late._MODULES:
        assert getattr(late, name).__name__ == f"qhana_taskstate.{late._MODULES[name]}"
    for name in qhana_taskstate.__all__:
        assert getattr(qhana_taskstate, name) is not None
    for module in (late, qhana_taskstate):
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            getattr(module, "nothing")  # noqa: B009 - mypy knows that it is not there


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
        TaskState(databse_url="sqlite://")  # type: ignore[call-arg]


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
        ("lost_after_seconds", 1e300),
        ("webhook_secrets", 5),
        ("webhook_secrets", "whsec_"),
        ("webhook_secrets", ["whsec_ab!d"]),
        ("webhook_secrets", ["whsec_c2hvcnQ="]),
        ("webhook_secrets", ["c2VjcmV0IG9mIGVub3VnaCBieXRlcywgYnV0IGJhcmU="]),
        ("webhook_secrets", [b"whsec_c2VjcmV0IG9mIGVub3VnaCBieXRlcywgYnV0IGJhcmU="]),
        ("webhook_secrets", {"whsec_c2VjcmV0IG9mIGVub3VnaCBieXRlcywgYnV0IGJhcmU=": 1}),
        ("webhook_retry_schedule", "[1,"),
        ("webhook_retry_schedule", [-1]),
        ("webhook_retry_schedule", [float("nan")]),
        ("webhook_retry_schedule", [float("inf")]),
        ("webhook_retry_schedule", [1e300]),
        ("webhook_retry_schedule", ["soon"]),
        ("webhook_retry_schedule", [[1]]),
        ("webhook_retry_schedule", [None]),
        ("webhook_retry_schedule", b"12"),
        ("webhook_retry_schedule", {1: 2}),
        ("webhook_retry_schedule", {1, 2}),
        ("webhook_retry_schedule", 5),
        ("webhook_retry_schedule", range(101)),
        ("webhook_allowed_networks", None),
        ("webhook_allowed_networks", ["10.0.0.0/33"]),
        ("webhook_allowed_networks", ["10.0.0.1/8"]),
        ("webhook_allowed_networks", ["127.1"]),
        ("webhook_allowed_networks", ["*.example"]),
        ("webhook_allowed_networks", ["https://me.example/"]),
        ("webhook_allowed_networks", ["receiver:8080"]),
        ("webhook_timeout_seconds", 0),
        ("webhook_timeout_seconds", 301),
        ("webhook_min_interval_seconds", -1),
        ("webhook_min_interval_seconds", 1e300),
        ("webhook_queue", 5),
        ("webhook_queue", "  "),
    ],
)
def test_wrong_value_is_named(name: str, value: Any) -> None:
    state = TaskState(Celery("x", set_as_current=False), **{name: value})
    with pytest.raises(SettingsError, match=name):
        _ = state.database


@pytest.mark.parametrize(
    ("value", "seen"),
    [([], ()), ("", ()), ("[]", ()), ("5", (5,)), ("0, 1.5", (0, 1.5)), (range(100), tuple(range(100)))],
)
def test_schedule_may_be_empty_and_short(value: Any, seen: tuple[float, ...]) -> None:
    state = TaskState(Celery("x", set_as_current=False), webhook_retry_schedule=value)
    assert state.settings.webhook_retry_schedule == seen


def test_worker_with_a_wrong_setting_does_not_start(run_celery: RunCelery) -> None:
    words = ("-A", "worker", "worker", "--pool", "solo")
    for name, value in (
        ("WEBHOOK_SECRETS", "whsec_hunter2"),
        ("WEBHOOK_RETRY_SCHEDULE", "1,soon"),
        ("WEBHOOK_ALLOWED_NETWORKS", "10.0.0.1/8"),
    ):
        done = run_celery(*words, env={f"TASKSTATE_{name}": value}, timeout=60)
        assert done.returncode != 0
        assert f"TASKSTATE_{name}" in done.stderr
        assert "hunter2" not in done.stdout + done.stderr


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
