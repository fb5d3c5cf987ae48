"""What grows in a worker: the memory of a pool process with its tasks, the cost of a member with its canvas."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import psutil

from benchmarks.deployment import Deployment, deploy
from benchmarks.goals.goal import Goal, at_most
from qhana_taskstate.testing.sql_server import SqlServer

#: Tasks that each worker runs before its memory is first looked at: what is loaded and cached once.
_WARM = 500


def measure_members(server: SqlServer, folder: Path, *, size: int, rounds: int) -> list[Goal]:
    """Compare a member of a large group with one of a group of 100, in a worker."""
    with ExitStack() as stack:
        ours = deploy(stack, {"taskstate"}, server, folder)["taskstate"]
        ours.drain("group", 1000)
        kind = "group of 10000" if size > 1000 else "group of 1000"
        ratios = [ours.drain("group", 1000).rate / ours.drain(kind, size).rate for _ in range(rounds)]
    return [at_most(f"a member of a {kind}, of one of a group of 100, in the worker", ratios, 1.2)]


def measure_memory(server: SqlServer, folder: Path, *, tasks: int) -> list[Goal]:
    """Compare how the pool processes grow over many tasks with how those of bare tasks do."""
    with ExitStack() as stack:
        deployments = deploy(stack, {"bare", "taskstate"}, server, folder)
        bare = _growth(deployments["bare"], "nothing", tasks)
        ratio = _growth(deployments["taskstate"], "usual", tasks) / bare
    return [at_most(f"growth of a worker child over {tasks:,} tracked tasks, of over bare ones", [ratio], 1.05)]


def _growth(deployment: Deployment, kind: str, tasks: int) -> float:
    deployment.drain(kind, _WARM)
    before = _children_bytes(deployment)
    for _ in range(0, tasks, 5000):
        deployment.drain(kind, min(5000, tasks))
    return _children_bytes(deployment) / before


def _children_bytes(deployment: Deployment) -> int:
    children = psutil.Process(deployment.worker.pid).children(recursive=True)
    return max(child.memory_full_info().uss for child in children)
