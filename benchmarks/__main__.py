"""Measure what tracking costs, and say for each number that is promised whether it is met.

`python -m benchmarks` starts what it needs: Redis, PostgreSQL, workers. Everything is measured in alternation in one
run, so that only ratios mean something. Exits with 0 whether or not the goals are met, with 1 where a run failed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.goals import growth, logs, loops, many, rates, starts
from benchmarks.goals.goal import Goal
from qhana_taskstate.testing.mariadb_server import MariaDBServer
from qhana_taskstate.testing.postgres_server import PostgresServer
from qhana_taskstate.testing.server import ServerMissingError

#: Tasks of a kind in a round, and rounds.
_FULL, _QUICK = (1000, 5), (60, 1)
#: Sections that take long by their nature; without `--only` a quick run leaves them out.
_LONG = ("members", "memory", "tables", "prune")
#: Rows where `--quick` and a long section are asked for together.
_QUICK_ROWS = 20_000
#: Rows of the tables that they need: finished tasks beside which calls are timed, and tasks that are removed.
_TABLE, _PRUNED, _TRACKED = 5_000_000, 1_000_000, 50_000


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options; of the command line unless words are given."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="see within two minutes that everything works")
    parser.add_argument("--tasks", type=int, help=f"tasks of a kind in a round (default {_FULL[0]})")
    parser.add_argument("--rounds", type=int, help=f"rounds, of which the median counts (default {_FULL[1]})")
    parser.add_argument("--rows", type=int, help="tasks in the tables of the long sections (default: as promised)")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="sections, kinds of tasks or contenders")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    return parser.parse_args(words)


def main() -> int:
    """Run the benchmark; see `--help`."""
    arguments = parse()
    tasks, rounds = _QUICK if arguments.quick else _FULL
    rows = 0 if arguments.rows is None and not arguments.quick else arguments.rows or _QUICK_ROWS
    run = Run(arguments.tasks or tasks, arguments.rounds or rounds, arguments.only, rows=rows, quiet=arguments.json)
    if arguments.quick and not arguments.only:
        run.leave_out(_LONG)
    run.all()
    if arguments.json:
        print(json.dumps({"table": run.table, "goals": [_as_json(goal) for goal in run.goals]}, indent=2))
    return 0


class Run:
    """One run of the benchmark.

    Args:
        tasks: Tasks of a kind in a round.
        rounds: Rounds that count.
        only: Names of sections, kinds of tasks or contenders; empty for all.
        rows: Tasks in the tables of the long sections, 0 for as many as is promised.
        quiet: Print nothing.
    """

    def __init__(self, tasks: int, rounds: int, only: list[str], *, rows: int, quiet: bool) -> None:
        self.tasks, self.rounds, self.rows, self.quiet = tasks, rounds, rows, quiet
        self.only = set(only)
        self.table: list[dict[str, Any]] = []
        self.goals: list[Goal] = []
        self._sections: dict[str, Callable[[Path], None]] = {
            "postgresql": self._postgresql,
            "sqlite": self._sqlite,
            "mariadb": self._mariadb,
            "start": self._start,
            "loops": self._loops,
            "log": self._log,
            "members": self._members,
            "memory": self._memory,
            "tables": self._tables,
            "prune": self._prune,
        }

    def leave_out(self, names: Iterable[str]) -> None:
        """Leave sections out."""
        for name in names:
            del self._sections[name]

    def all(self) -> None:
        """Measure each section that is asked for."""
        sections = self.only & set(self._sections) or set(self._sections)
        for name, section in self._sections.items():
            if name in sections:
                with tempfile.TemporaryDirectory() as folder:
                    self._print(f"== {name}")
                    section(Path(folder))

    def _postgresql(self, folder: Path) -> None:
        with PostgresServer() as server:
            self._rates("postgresql", server, folder)

    def _sqlite(self, folder: Path) -> None:
        self._rates("sqlite", None, folder)

    def _mariadb(self, folder: Path) -> None:
        with ExitStack() as stack:
            try:
                server = stack.enter_context(MariaDBServer())
            except ServerMissingError as missing:
                self._print(f"skipped: {missing}")
                return
            self._rates("mariadb", server, folder)

    def _rates(self, database: str, server: Any, folder: Path) -> None:
        only = sorted(self.only - set(self._sections))
        rows, goals = rates.measure(server, folder, count=self.tasks, rounds=self.rounds, only=only)
        self._print(rates.HEAD, *rows)
        self.table += [{"database": database, **dataclasses.asdict(row)} for row in rows]
        self._add(goals)

    def _start(self, folder: Path) -> None:
        with PostgresServer() as server:
            self._add(starts.measure(server, folder, rounds=self.rounds))

    def _loops(self, folder: Path) -> None:
        self._add(loops.measure(folder, rounds=min(self.rounds, 3)))

    def _log(self, folder: Path) -> None:
        megabytes = 50 if self.tasks > _QUICK[0] else 5
        self._add(logs.measure(None, folder, megabytes=megabytes))
        with PostgresServer() as server:
            self._add(logs.measure(server, folder, megabytes=megabytes))

    def _members(self, folder: Path) -> None:
        with PostgresServer() as server:
            self._add(growth.measure_members(server, folder, size=self.rows or 10_000, rounds=min(self.rounds, 3)))

    def _memory(self, folder: Path) -> None:
        with PostgresServer() as server:
            self._add(growth.measure_memory(server, folder, tasks=self.rows or _TRACKED))

    def _tables(self, _folder: Path) -> None:
        with PostgresServer() as server:
            self._add(many.measure_calls(server, tasks=self.rows or _TABLE, rounds=self.rounds))

    def _prune(self, _folder: Path) -> None:
        with PostgresServer() as server:
            self._add(many.measure_prune(server, tasks=self.rows or _PRUNED))

    def _add(self, goals: list[Goal]) -> None:
        self.goals += goals
        self._print(*goals)

    def _print(self, *lines: object) -> None:
        if not self.quiet:
            print(*lines, sep="\n", flush=True)


def _as_json(goal: Goal) -> dict[str, Any]:
    return {**dataclasses.asdict(goal), "met": goal.met}


if __name__ == "__main__":
    sys.exit(main())
