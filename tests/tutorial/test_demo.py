"""The demo: what it shows of webhooks, and how it ends."""

from __future__ import annotations

import base64
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from qhana_taskstate.demo import screen
from qhana_taskstate.demo.jobs import Job
from qhana_taskstate.demo.screen import Screen
from qhana_taskstate.states import TaskStatus
from qhana_taskstate.testing import LocalProcess
from qhana_taskstate.testing.receiver import WebhookReceiver

from ..waiting import wait_until
from .readme import ROOT

#: A call as the demo shows it: the task, the event, its sequence, and the status of the task.
CALL = re.compile(r"^(\d+) webhook: (status|steps|details) (\d+), task is (\w+), signature ok$", re.MULTILINE)

StartDemo = Callable[..., LocalProcess]


@pytest.fixture
def start_demo(tmp_path: Path) -> Iterator[StartDemo]:
    """Start the demo in the root of the repository, with variables beside the environment."""
    demos: list[LocalProcess] = []

    def start(**variables: str) -> LocalProcess:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TASKSTATE_", "CELERY_"))}
        demo = LocalProcess(
            [sys.executable, "-m", "qhana_taskstate.demo", "--output", str(tmp_path / "output")],
            log_path=tmp_path / "demo.log",
            cwd=ROOT,
            env={**kept, **variables},
        )
        demos.append(demo)
        demo.start()
        return demo

    yield start
    for demo in demos:
        demo.close()


def test_end_of_every_job_is_told_and_signed(start_demo: StartDemo) -> None:
    demo = start_demo()

    assert demo.wait(100) == 0, demo.logs()

    calls = CALL.findall(demo.logs())
    ends = {int(task_id): status for task_id, event, _, status in calls if event == "status"}
    assert ends == {1: "SUCCESS", 2: "SUCCESS", 3: "FAILURE"}
    assert {event for task_id, event, _, _ in calls if task_id == "1"} == {"status", "steps", "details"}
    for key in {(task_id, event) for task_id, event, _, _ in calls}:
        sequence = [int(number) for task_id, event, number, _ in calls if (task_id, event) == key]
        assert sequence == list(range(1, len(sequence) + 1))
    assert not demo.descendants()


def test_settings_of_the_environment_are_kept_and_completed(start_demo: StartDemo) -> None:
    secret = "whsec_" + base64.b64encode(b"a secret that was there before").decode()
    demo = start_demo(
        TASKSTATE_WEBHOOK_SECRETS=secret,
        TASKSTATE_WEBHOOK_ALLOWED_NETWORKS='["10.0.0.0/8", "receiver"]',
        TASKSTATE_WEBHOOK_QUEUE="nobody-serves-it",
    )

    assert demo.wait(100) == 0, demo.logs()
    assert len(CALL.findall(demo.logs())) >= 3
    assert secret not in demo.logs()


def test_interrupted_demo_leaves_nothing_behind(start_demo: StartDemo) -> None:
    demo = start_demo()
    wait_until("a webhook was told", lambda: CALL.search(demo.logs()), timeout=100)
    started = demo.descendants()
    assert started

    demo.send_signal(signal.SIGINT)

    assert demo.wait(30) == 130, demo.logs()
    assert demo.logs().splitlines()[-1] == "interrupted; everything is stopped"
    assert "Traceback" not in demo.logs()
    wait_until("all that it started has ended", lambda: not any(Path(f"/proc/{pid}").exists() for pid in started))


def test_end_that_nobody_told_of_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen, "_TOLD_SECONDS", 0.3)
    printed = io.StringIO()
    looks: list[None] = []
    job = Job(task_id=7, expected=TaskStatus.SUCCESS, source="http://localhost:5005/demo/jobs/1/")
    with WebhookReceiver() as receiver:
        shown = Screen(Console(file=printed), given_answer=3, interactive=False, receiver=receiver)

        assert not shown.hear_ends([job], lambda: looks.append(None))

    assert "no webhook told of the end of task 7" in printed.getvalue()
    assert looks
