"""Upgrades without downtime: workers and clients of the release before beside those of this one, on the new tables."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qhana_taskstate.testing import LocalProcess
from tests.waiting import wait_until

#: The release before: 0.1.0.
BEFORE = "1697d922c79aeed805c1d42e2150f460feb878e6"

ROOT = Path(__file__).parents[2]

_WORKER = """
from celery import Celery, chain, chord
from qhana_taskstate import TaskState, add_log, plugin_task, report_progress, taskstate
app = Celery("mixed", broker="{broker}", backend="{broker}")
app.conf.broker_connection_retry_on_startup = True
state = TaskState(app, database_url="{database}")
OLD, NEW = {{"queue": "old"}}, {{"queue": "new"}}

@plugin_task(name="add")
def add(a, b=1):
    report_progress(50)
    add_log(f"{{a}} + {{b}}")
    return str(int(a) + b)

@plugin_task(name="total")
def total(numbers):
    return str(sum(map(int, numbers)))

@plugin_task(name="fail")
def fail(_=None):
    raise ValueError("on purpose")

@plugin_task(name="ask")
def ask():
    taskstate.current().add_next_step("http://h/", "http://h/", "k")

def start_all():
    both = [[OLD, NEW], [NEW, OLD]]
    found = {{}}
    for first, second in both:
        where = first["queue"]
        members = [add.s(1).set(**first), add.s().set(**second), add.s().set(**first)]
        found[f"chain {{where}}"] = state.start(chain(*members))
        members = [add.s(n).set(**(first if n % 2 else second)) for n in range(4)]
        found[f"chord {{where}}"] = state.start(chord(members, total.s().set(**second)))
        found[f"fails {{where}}"] = state.start(chain(add.s(1).set(**first), fail.s().set(**second)))
        asked = state.start(ask.s().set(**first))
        state.wait(asked.id, timeout=30, or_step=True)
        found[f"steps {{where}}"] = state.start(add.s(5).set(**second), task=asked.id, answers="k")
    return {{name: state.wait(task.id, timeout=40) for name, task in found.items()}}
"""

_CLIENT = """
from worker import start_all, state
ended = start_all()
for name, task in ended.items():
    said = state.describe(task.id)
    expected = "ERROR" if name.startswith("fails") else "SUCCESS"
    assert task.status == expected, (name, said)
    wanted = {"chain": "3 + 1", "chord": "10", "fails": "on purpose", "steps": "5 + 1"}[name.split()[0]]
    assert wanted in said["log"], (name, said)
"""


class Releases:
    """Runs code of the release before, and of this one, in one folder."""

    def __init__(self, folder: Path, before: Path) -> None:
        self.folder = folder
        self._before = before
        self._workers: list[LocalProcess] = []

    def environment(self, *, old: bool) -> dict[str, str]:
        names = ("TASKSTATE_", "CELERY_", "PYTHONPATH")
        found = {name: value for name, value in os.environ.items() if not name.startswith(names)}
        return found | {"PYTHONPATH": str(self._before if old else ROOT)}

    def run(self, code: str, *, old: bool) -> str:
        """Run Python code; returns what it printed."""
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=self.folder,
            env=self.environment(old=old),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start_worker(self, queue: str, *, old: bool) -> None:
        """Start a worker of one queue."""
        command = [sys.executable, "-m", "celery", "-A", "worker", "worker", "-n", f"{queue}@%h", "-Q", queue]
        worker = LocalProcess(
            [*command, "-l", "INFO", "-P", "threads", "-c", "2"],
            log_path=self.folder / f"{queue}.log",
            cwd=self.folder,
            env=self.environment(old=old),
        )
        worker.start()
        self._workers.append(worker)
        wait_until(f"the worker of {queue} is ready", lambda: " ready." in self.log(queue))

    def log(self, queue: str) -> str:
        """Return what the worker of a queue has logged."""
        return (self.folder / f"{queue}.log").read_text()

    def close(self) -> None:
        for worker in self._workers:
            worker.close()


@pytest.fixture
def releases(tmp_path: Path) -> Iterator[Releases]:
    """Code of both releases; skips where there is no history that has the one before."""
    git = shutil.which("git") or pytest.skip("there is no git here, which has the release before")
    archive = subprocess.run(
        [git, "archive", BEFORE, "qhana_taskstate"],
        cwd=ROOT,
        capture_output=True,
        check=False,
        timeout=60,
    )
    if archive.returncode:
        pytest.skip(f"there is no history here that has the release before ({BEFORE})")
    before, folder = tmp_path / "before", tmp_path / "project"
    folder.mkdir()
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(before, filter="data")
    made = Releases(folder, before)
    yield made
    made.close()


@pytest.mark.databases("sqlite")
def test_both_releases_work_side_by_side_on_the_new_tables(
    releases: Releases, new_redis_url: Callable[[], str], taskstate_database_url: str
) -> None:
    worker = _WORKER.format(broker=new_redis_url(), database=taskstate_database_url)
    (releases.folder / "worker.py").write_text(worker)
    which = "import qhana_taskstate, sys; print(qhana_taskstate.__file__)"
    assert str(ROOT) not in releases.run(which, old=True)
    upgrade = "from worker import state; state.upgrade()"
    # The tables of the release before, with a task of its own, are brought up to date while its worker runs.
    releases.run(upgrade, old=True)
    releases.start_worker("old", old=True)
    releases.run("from worker import *; state.wait(state.start(add.s(1).set(**OLD)).id, timeout=30)", old=True)
    # A worker of this release that comes before its tables keeps what happens in memory until they are there.
    releases.start_worker("new", old=False)
    early = "from worker import *; state.start(chain(add.s(1).set(**OLD), add.s().set(**NEW), add.s().set(**OLD)))"
    releases.run(early, old=True)
    wait_until("the worker says what it lacks", lambda: "taskstate upgrade" in releases.log("new"))
    releases.run(upgrade, old=False)
    ended = "from worker import *; assert [state.wait(n, timeout=30).status for n in (1, 2)] == ['SUCCESS'] * 2"
    releases.run(ended, old=False)
    for old in (True, False):
        releases.run(_CLIENT, old=old)
    for queue in ("old", "new"):
        assert "could not be recorded" not in releases.log(queue)
        assert "sqlalchemy.exc" not in releases.log(queue)
