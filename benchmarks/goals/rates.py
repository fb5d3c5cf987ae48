"""Each kind of task through a worker, in alternation with bare ones, and beside what others keep of a task."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.deployment import Drained, deploy
from benchmarks.goals.goal import Goal, at_least
from qhana_taskstate.testing.sql_server import SqlServer

#: Kind of task of a contender, the kind of a bare one that it is compared with, and the least ratio of their rates.
KINDS: dict[tuple[str, str], tuple[str, float | None]] = {
    ("taskstate", "nothing"): ("nothing", 0.75),
    ("taskstate", "text"): ("nothing", None),
    ("taskstate", "line"): ("nothing", None),
    ("taskstate", "progress"): ("nothing", None),
    ("taskstate", "usual"): ("nothing", 0.7),
    ("taskstate", "watched"): ("nothing", 0.6),
    ("taskstate", "group"): ("group", 0.7),
    ("taskstate", "chord"): ("chord", None),
    ("runner", "usual"): ("nothing", None),
    ("celery_db", "usual"): ("nothing", None),
    ("django_results", "usual"): ("nothing", None),
}
#: How many times the rate of others the usual task is to have.
BESIDE = {"runner": 4.0, "celery_db": 3.0}
#: The least ratio of the usual task on SQLite.
SQLITE_BOUND = 0.45


@dataclass
class Row:
    """What was measured of one kind of task, a value a round."""

    contender: str
    kind: str
    ratios: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    worker_cpu: list[float] = field(default_factory=list)
    database_cpu: list[float] = field(default_factory=list)
    send_milliseconds: list[float] = field(default_factory=list)

    def add(self, drained: Drained, bare: float) -> None:
        """Take what one round measured, beside the rate of bare tasks in the same round."""
        self.ratios.append(drained.rate / bare)
        self.rates.append(drained.rate)
        self.worker_cpu.append(drained.worker_cpu)
        self.database_cpu.append(drained.database_cpu)
        self.send_milliseconds.append(1000 * drained.send_seconds)

    def __str__(self) -> str:
        """The row of the table, as it is printed."""
        low, high = min(self.ratios), max(self.ratios)
        return (
            f"{self.contender + ' ' + self.kind:24} {statistics.median(self.ratios):5.2f} ({low:.2f} to {high:.2f})"
            f" {statistics.median(self.rates):7.0f}/s"
            f" {statistics.median(self.worker_cpu):7.2f} {statistics.median(self.database_cpu):7.2f}"
            f" {statistics.median(self.send_milliseconds):7.2f}"
        )


#: Stands over the table's columns.
HEAD = (
    f"{'':24} {'of bare':>20} {'rate':>9} {'worker':>7} {'database':>8} {'send':>6}   (CPU and sending: ms per message)"
)


def measure(
    server: SqlServer | None, folder: Path, *, count: int, rounds: int, only: Sequence[str] = ()
) -> tuple[list[Row], list[Goal]]:
    """Measure all kinds.

    Args:
        server: The database server, None for SQLite; only our own kinds run elsewhere than on PostgreSQL.
        folder: For logs and SQLite's file.
        count: Tasks of each kind in a round.
        rounds: A further one comes first and does not count.
        only: Names of kinds or contenders; default all.

    Returns:
        The table's rows, bare ones first, and the goals.
    """
    # The others are set up for PostgreSQL, where the promises are.
    compares = server is not None and server.drivername.startswith("postgresql")
    wanted = {
        key: value
        for key, value in KINDS.items()
        if (compares or key[0] == "taskstate") and (not only or key[0] in only or key[1] in only)
    }
    rows: dict[tuple[str, str], Row] = {}
    with ExitStack() as stack:
        deployments = deploy(stack, {"bare", *(contender for contender, _ in wanted)}, server, folder)
        for number in range(rounds + 1):
            bare: dict[str, float] = {}
            for (contender, kind), (beside, _) in wanted.items():
                if beside not in bare:
                    drained = deployments["bare"].drain(beside, count)
                    bare[beside] = drained.rate
                    if number:
                        rows.setdefault(("bare", beside), Row("bare", beside)).add(drained, drained.rate)
                drained = deployments[contender].drain(kind, count)
                if number:
                    rows.setdefault((contender, kind), Row(contender, kind)).add(drained, bare[beside])
    ordered = sorted(rows.values(), key=lambda row: row.contender != "bare")
    if server is None:
        return ordered, _goals_of_sqlite(rows)
    return ordered, _goals(rows) if compares else []


def _goals_of_sqlite(rows: dict[tuple[str, str], Row]) -> list[Goal]:
    usual = rows.get(("taskstate", "usual"))
    return [at_least("usual task on SQLite, of bare", usual.ratios, SQLITE_BOUND)] if usual else []


def _goals(rows: dict[tuple[str, str], Row]) -> list[Goal]:
    goals = [
        at_least(f"{kind}, of bare", rows[contender, kind].ratios, bound)
        for (contender, kind), (_, bound) in KINDS.items()
        if bound is not None and (contender, kind) in rows
    ]
    usual = rows.get(("taskstate", "usual"))
    for contender, bound in BESIDE.items():
        other = rows.get((contender, "usual"))
        if usual and other:
            times = [ours / theirs for ours, theirs in zip(usual.rates, other.rates, strict=True)]
            goals.append(at_least(f"usual task, of {contender}", times, bound))
    return goals
