"""What is forked from the warm interpreter does what a new one does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import warm
from tests.waiting import wait_until

SAY = """
import json, os, sys
print(json.dumps([sys.argv, os.getcwd(), sys.path[0], os.environ["SAID"], __name__, os.getpid() != os.getppid()]))
print("apart", file=sys.stderr)
sys.exit(3)
"""


@pytest.fixture(params=["cold", "warm"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to start a process."""
    if request.param == "cold":
        monkeypatch.setenv("TASKSTATE_COLD_PROCESSES", "1")
    else:
        monkeypatch.delenv("TASKSTATE_COLD_PROCESSES", raising=False)
    return str(request.param)


def test_code_sees_its_arguments_folder_and_environment_and_tells_its_end(way: str, tmp_path: Path) -> None:
    environment = {**os.environ, "SAID": way}

    done = warm.run([sys.executable, "-c", SAY, "a"], env=environment, cwd=tmp_path, capture_output=True, text=True)

    assert done.stdout == f'[["-c", "a"], "{tmp_path}", "", "{way}", "__main__", true]\n'
    assert (done.stderr, done.returncode) == ("apart\n", 3)


def test_error_is_told_and_is_a_code_of_its_own(way: str) -> None:
    done = warm.run([sys.executable, "-c", "open('/nowhere')"], capture_output=True, text=True)

    assert "FileNotFoundError" in done.stderr and done.returncode == 1
    with pytest.raises(subprocess.CalledProcessError):
        warm.run([sys.executable, "-c", "1 / 0"], capture_output=True, check=True)


def test_command_that_takes_too_long_is_ended(way: str, tmp_path: Path) -> None:
    code = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"

    with pytest.raises(subprocess.TimeoutExpired):
        warm.run([sys.executable, "-c", code], capture_output=True, timeout=2)

    pid = int((tmp_path / "pid").read_text())
    wait_until("it is gone", lambda: not Path(f"/proc/{pid}").exists(), timeout=10)


def test_celery_says_the_same(way: str) -> None:
    done = warm.run([sys.executable, "-m", "celery", "--version"], capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("5.")
