"""Random nests on a real prefork worker end as plain recursion says. `python -m benchmarks.nests` is the long run."""

from __future__ import annotations

import os
import random

import pytest

from benchmarks.nests import Run, random_trees
from tests.apps.nests import Tree, messages, succeeds
from tests.canvas.deployment import Deployment


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
def test_random_nests_end_as_predicted(deployment: Deployment) -> None:
    seed = int(os.environ.get("NESTS_SEED") or random.SystemRandom().randrange(10**6))
    print(f"NESTS_SEED={seed}")

    report = Run(deployment.taskstate, patience=40)(random_trees(seed, 40))

    assert report.faults == []
    assert sum(report.ends.values()) == 40


_OK: Tree = ["leaf", "ok", 0]
_FAIL: Tree = ["plain", "fail", 0]
_CHORD: Tree = ["chord", _OK, _OK, _OK]
_GROUP: Tree = ["group", ["leaf", "ignore", 0], _OK, _OK]
_CHORD_OF_GROUP: Tree = ["chord", _GROUP, _OK, _OK]

#: A group in which one member sends nothing that follows, and what Celery makes of that.
AFTER_A_GROUP: list[tuple[Tree, bool]] = [
    (["chain", _GROUP, _CHORD, _FAIL], True),
    (["chain", _CHORD_OF_GROUP, _OK, _FAIL], True),
    (["chain", _CHORD_OF_GROUP, ["group", _OK, _FAIL]], True),
    (["chain", _CHORD_OF_GROUP, ["group", _OK, _OK], _FAIL], True),
    (["chain", ["replace", _CHORD_OF_GROUP], _CHORD, _FAIL], True),
    (["chain", ["chord", ["chain", _OK, _GROUP], _OK, _OK], _CHORD, _FAIL], True),
    (["chain", _CHORD_OF_GROUP, _CHORD, _FAIL], False),
    (["chain", _CHORD_OF_GROUP, ["chord", _FAIL, _OK, _OK]], False),
    (["chain", ["chain", _OK, _CHORD_OF_GROUP], ["chain", _CHORD, _FAIL]], False),
    (["chain", ["chord", _CHORD_OF_GROUP, _OK], _CHORD, _FAIL], False),
    (["chord", ["chain", _CHORD_OF_GROUP, _CHORD, _FAIL], _OK], False),
    (["chain", ["chord", ["group", ["leaf", "ignore", 0]], _OK], _CHORD, _FAIL], True),
]


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
def test_what_follows_a_group_ends_as_predicted(deployment: Deployment) -> None:
    report = Run(deployment.taskstate, patience=40)([tree for tree, _ in AFTER_A_GROUP])

    assert report.faults == []


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        *AFTER_A_GROUP,
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
