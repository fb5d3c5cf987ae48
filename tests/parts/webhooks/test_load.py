"""Nobody misses the last change while receivers fail, deliverers are killed and the broker forgets.

`python -m benchmarks.webhooks` is the run of full length.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_subscribers_miss_nothing_in_a_short_run_of_the_load(pytestconfig: pytest.Config) -> None:
    command = [sys.executable, "-m", "benchmarks.webhooks", "--tasks", "12", "--seconds", "12", "--kills", "2"]

    ran = subprocess.run(command, cwd=Path(pytestconfig.rootpath), capture_output=True, text=True, timeout=115)

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "every promise was kept" in ran.stdout
