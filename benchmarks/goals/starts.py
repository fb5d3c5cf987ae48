"""What starting a job takes the client, beside one committed row and a bare publish."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from benchmarks.deployment import deploy
from benchmarks.goals.goal import Goal, at_least, at_most
from qhana_taskstate.testing.sql_server import SqlServer

#: Contender and kind, what it is compared with, messages in a round, and the least ratio (theirs over ours).
_PAIRS: list[tuple[str, tuple[str, str], tuple[str, str], int, float]] = [
    ("start, of row + publish", ("taskstate", "nothing"), ("row_publish", "nothing"), 300, 0.8),
    ("start with a subscriber, of row + publish", ("taskstate", "watched"), ("row_publish", "nothing"), 300, 0.7),
    (
        "start of a group of 1,000, of its bare publishing",
        ("taskstate", "group of 1000"),
        ("bare", "group of 1000"),
        1000,
        0.8,
    ),
]


def measure(server: SqlServer, folder: Path, *, rounds: int) -> list[Goal]:
    """Measure in alternation; a further round comes first and does not count."""
    with ExitStack() as stack:
        deployments = deploy(stack, {"bare", "row_publish", "taskstate"}, server, folder)

        def seconds(contender: str, kind: str, count: int) -> float:
            return deployments[contender].send(kind, count)

        return [*_of_pairs(seconds, rounds), _large_group(seconds, rounds)]


def _of_pairs(seconds: Callable[[str, str, int], float], rounds: int) -> list[Goal]:
    goals = []
    for name, ours, theirs, count, bound in _PAIRS:
        ratios = [seconds(*theirs, count) / seconds(*ours, count) for _ in range(rounds + 1)][1:]
        goals.append(at_least(name, ratios, bound))
    return goals


def _large_group(seconds: Callable[[str, str, int], float], rounds: int) -> Goal:
    """Whether a member of a large group costs `start` what one of a small group does."""
    ratios = [
        seconds("taskstate", "group of 10000", 10_000) / seconds("taskstate", "group", 1000)
        for _ in range(max(rounds // 2, 1))
    ]
    return at_most("start of a group of 10,000, per member, of a group of 100", ratios, 1.2)
