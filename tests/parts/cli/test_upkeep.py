"""The command that does the chores of upkeep by hand."""

from __future__ import annotations

import json

from qhana_taskstate.testing.plugin import RunCelery


def test_one_look_says_what_it_settled(run_celery: RunCelery, taskstate_database_url: str) -> None:
    assert run_celery("-A", "tests.apps.worker", "taskstate", "upgrade").returncode == 0

    looked = run_celery("-A", "tests.apps.worker", "taskstate", "upkeep", "--once", "--json")

    assert looked.returncode == 0, looked.stderr
    assert json.loads(looked.stdout) == {
        "lost": 0,
        "handed_back": 0,
        "overdue": 0,
        "abandoned": 0,
        "shown": 0,
        "missing": 0,
        "resent": 0,
        "pruned": 0,
    }


def test_loop_ends_by_itself_after_some_seconds(run_celery: RunCelery, taskstate_database_url: str) -> None:
    run_celery("-A", "tests.apps.worker", "taskstate", "upgrade")

    assert run_celery("-A", "tests.apps.worker", "taskstate", "upkeep", "--seconds", "0").returncode == 0


def test_database_without_tables_is_told(run_celery: RunCelery, taskstate_database_url: str) -> None:
    looked = run_celery("-A", "tests.apps.worker", "taskstate", "upkeep", "--once")

    assert looked.returncode == 1
    assert "taskstate upgrade" in looked.stderr
