"""Random nests on a real prefork worker end as plain recursion says. `python -m benchmarks.nests` is the long run."""

from __future__ import annotations

import os
import random

import pytest

from benchmarks.nests import Run, random_trees
from tests.apps.nests import messages, succeeds
from tests.canvas.deployment import Deployment


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
def test_random_nests_end_as_predicted(deployment: Deployment) -> None:
    seed = int(os.environ.get("NESTS_SEED") or random.SystemRandom().randrange(10**6))
    print(f"NESTS_SEED={seed}")

    report = Run(deployment.taskstate, patience=40)(random_trees(seed, 40))

    assert report.faults == []
    assert sum(report.ends.values()) == 40


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (["leaf", "ok", 0], True),
        (["leaf", "retry:2:fail", 0], False),
        (["leaf", "retry:1:reject", 0], False),
        (["chain", ["leaf", "reject", 0], ["leaf", "ok", 0]], False),
        (["chain", ["leaf", "ignore", 0], ["leaf", "fail", 0]], True),
        (["chain", ["spawn", ["leaf", "ignore", 0]], ["leaf", "fail", 0]], False),
        (["chord", ["leaf", "fail", 0], ["leaf", "ok", 0], ["plain", "ignore", 0]], True),
        (["group", ["leaf", "ignore", 0], ["leaf", "fail", 0]], False),
        (["link", ["leaf", "ok", 0], ["leaf", "fail", 0]], False),
        (["link", ["leaf", "ignore", 0], ["leaf", "fail", 0]], True),
        (["replace", ["chain", ["leaf", "ok", 0], ["leaf", "fail", 0]]], False),
    ],
)
def test_prediction_follows_what_celery_sends(tree: list[object], expected: bool) -> None:
    assert succeeds(tree) is expected


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (["leaf", "retry:2:ok", 0], 3),
        (["leaf", "ignore", 0], None),
        (["replace", ["chain", ["leaf", "ok", 0], ["spawn", ["plain", "ok", 0]]]], 4),
        (["chord", ["leaf", "ok", 0], ["leaf", "ok", 0], ["chain", ["leaf", "ok", 0], ["leaf", "fail", 0]]], None),
    ],
)
def test_messages_are_counted_if_all_ends_well(tree: list[object], expected: int | None) -> None:
    assert messages(tree) == expected
