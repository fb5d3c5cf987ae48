"""A project of Django, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def _run(tmp_path: Path, scene: str, states: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-m", "tests.apps.django_project", scene],
        env={
            **os.environ,
            "DJANGO_DATABASE": str(tmp_path / "shop.sqlite3"),
            "TASKSTATE_DATABASE_URL": states,
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("file", ["shop.sqlite3", "states.db"])
def test_work_is_started_when_the_outermost_transaction_is_committed(tmp_path: Path, file: str) -> None:
    _run(tmp_path, "commit", f"sqlite:///{tmp_path / file}")


def test_start_inside_a_transaction_on_the_same_file_is_refused_at_once(tmp_path: Path) -> None:
    assert "start_on_commit" in _run(tmp_path, "refuse", f"sqlite:///{tmp_path / 'shop.sqlite3'}")


@pytest.mark.parametrize("file", ["shop.sqlite3", "states.db"])
def test_states_of_django_tests_do_not_reach_the_database_of_development(tmp_path: Path, file: str) -> None:
    _run(tmp_path, "tests", f"sqlite:///{tmp_path / file}", EAGER="1")
    assert not (tmp_path / "states.db").exists()
    assert not (tmp_path / "shop.sqlite3").exists()
