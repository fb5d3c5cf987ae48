"""Runs the cases of `helpers` in a process of their own, since what an install replaces it replaces for the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(300)
def test_names_of_the_runner_keep_their_conventions(request: pytest.FixtureRequest) -> None:
    databases = request.config.getoption("--taskstate-databases")
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider"]
    if databases:
        command.append(f"--taskstate-databases={databases}")
    done = subprocess.run(
        [*command, str(Path(__file__).with_name("helpers.py"))],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
