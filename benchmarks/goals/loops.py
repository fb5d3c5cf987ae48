"""What reporting costs plugin code that does it in a hot loop, and what importing the package costs a process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.deployment import ROOT
from benchmarks.goals.goal import Goal, at_most

#: What every user of the package has imported anyway, with what Celery loads lazily.
_ANYWAY = "import celery, celery.canvas, celery.app.task, celery.app.amqp, kombu, redis, sqlalchemy.orm"
_IMPORT = "import time; began = time.perf_counter(); {}; print(time.perf_counter() - began)"


def measure(folder: Path, *, rounds: int) -> list[Goal]:
    """Measure loops inside a tracked execution, with its database in `folder`, and imports in new processes."""
    answers = [_loops(folder / f"loops-{number}.db") for number in range(rounds)]
    imports = [_seconds("import qhana_taskstate") / _seconds(_ANYWAY) for _ in range(rounds + 1)][1:]
    lines = [answer["lines"] / answer["logging"] for answer in answers]
    last = [answer["last"] / answer["first"] for answer in answers]
    return [
        at_most("track, a round", [answer["track"] for answer in answers], 100, "ns"),
        at_most("track, of tqdm", [answer["track"] / answer["tqdm"] for answer in answers], 1),
        at_most("report_progress, a call", [answer["report"] for answer in answers], 300, "ns"),
        at_most("writes a second in a hot loop", [answer["writes"] for answer in answers], 4),
        at_most("100,000 add_log with their writing, of logging into a file", lines, 2),
        at_most("the last thousand add_log, of the first", last, 1.5),
        at_most("import, of celery, kombu, redis and sqlalchemy.orm", imports, 1.3),
    ]


def _loops(database: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.hot_loops", f"sqlite:///{database}"]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout  # noqa: S603
    answer: dict[str, float] = json.loads(output.splitlines()[-1])
    return answer


def _seconds(statement: str) -> float:
    command = [sys.executable, "-c", _IMPORT.format(statement)]
    return float(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)  # noqa: S603
