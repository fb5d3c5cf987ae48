"""Whether what is asked and done often costs the same beside many finished tasks, and whether removal blocks nobody."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

from benchmarks.deployment import ROOT
from benchmarks.goals.goal import Goal, at_most
from qhana_taskstate.testing.sql_server import SqlServer

#: The small table that the large one is compared with.
_FEW = 5000


def measure_calls(server: SqlServer, *, tasks: int, rounds: int) -> list[Goal]:
    """Measure single calls beside few and beside many finished tasks, in alternation."""
    answers: dict[int, list[dict[str, float]]] = {_FEW: [], tasks: []}
    with _serving(server, _FEW) as few, _serving(server, tasks) as many:
        for _ in range(rounds + 1):
            answers[_FEW].append(_ask(few))
            answers[tasks].append(_ask(many))
    few_rounds, many_rounds = answers[_FEW][1:], answers[tasks][1:]
    goals = [
        at_most(
            f"{name} beside {tasks:,} tasks, of beside {_FEW:,}",
            [large[name] / small[name] for small, large in zip(few_rounds, many_rounds, strict=True)],
            1.2,
        )
        for name in few_rounds[0]
    ]
    return [
        *goals,
        at_most(f"upkeep with nothing to do, {tasks:,} tasks", [one["upkeep"] for one in many_rounds], 5, "ms"),
    ]


def measure_prune(server: SqlServer, *, tasks: int) -> list[Goal]:
    """Remove many tasks, while somebody else locks rows that are being removed."""
    command = [sys.executable, "-m", "benchmarks.pruning", server.create_database(), str(tasks)]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout  # noqa: S603
    answer = json.loads(output.splitlines()[-1])
    if answer["tasks"] + answer["busy"] != tasks:
        raise SystemExit(f"of {tasks} tasks {answer} were removed")
    return [at_most(f"the longest wait for a row while {tasks:,} tasks are pruned", [answer["waits"][-1]], 50, "ms")]


@contextmanager
def _serving(server: SqlServer, tasks: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "benchmarks.many_tasks", server.create_database(), str(tasks)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
    try:
        _answer(process)
        yield process
    finally:
        cast(IO[str], process.stdin).close()
        process.wait(timeout=60)


def _ask(process: subprocess.Popen[str]) -> dict[str, float]:
    sending = cast(IO[str], process.stdin)
    sending.write("\n")
    sending.flush()
    answer: dict[str, float] = _answer(process)
    return answer


def _answer(process: subprocess.Popen[str]) -> Any:
    line = cast(IO[str], process.stdout).readline()
    if not line:
        raise SystemExit(f"what measures ended with {process.wait(timeout=60)}")
    return json.loads(line)
