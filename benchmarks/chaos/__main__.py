"""Run the deployment under load while faults strike, and judge it; see `--help`."""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.chaos import evidence, findings, report
from benchmarks.chaos.evidence import Event
from benchmarks.chaos.faults import Striker
from benchmarks.chaos.plans import plan_of
from benchmarks.chaos.site import SETTINGS, Site
from benchmarks.chaos.verdict import Judge, Row

#: Seconds between two looks whether all has ended.
_LOOK: Final = 0.5


def _settle(site: Site, striker: Striker, seconds: float) -> None:
    """Wait until every task has ended and every subscriber was told, or the time is over."""
    deadline = time.time() + seconds
    while time.time() < deadline:
        striker.revive()
        with site.taskstate.database.reading() as connection:
            if not findings.open_tasks(connection):
                break
        time.sleep(_LOOK)
    while time.time() < deadline:
        striker.revive()
        with site.taskstate.database.reading() as connection:
            if not findings.owes_calls(connection):
                return
        time.sleep(_LOOK)


def _judge(site: Site, striker: Striker) -> Judge:
    events: dict[int, list[Event]] = defaultdict(list)
    for event in evidence.read(site.evidence):
        events[event.plan].append(event)
    with site.taskstate.database.reading() as connection:
        rows = findings.rows_by_plan(connection)
    judge = Judge([*striker.faults, *striker.losses], float(SETTINGS["flush_interval_seconds"]))
    owed: dict[int, str] = {}
    for number in sorted({*events, *rows}):
        plan = plan_of(site.seed, number)
        found: list[Row] = rows.get(number, [])
        judge.judge(plan, events[number], found)
        if plan.subscribes and found and found[0].finished is not None:
            owed[number] = "FAILURE" if found[0].status == "ERROR" else found[0].status
    judge.judge_calls(owed, site.receiver.calls)
    return judge


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read a command line, by default that of this process."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0, help="time of load and faults (default 3)")
    parser.add_argument("--seed", type=int, help="of plans and faults (default: a new one)")
    parser.add_argument("--rate", type=float, default=5.0, help="tasks a second (default 5)")
    parser.add_argument("--gap", type=float, default=8.0, help="mean seconds between two faults (default 8)")
    parser.add_argument(
        "--settle", type=float, default=120.0, help="seconds to settle in the end at most (default 120)"
    )
    parser.add_argument("--workers", type=int, default=3, help="workers with two processes each (default 3)")
    parser.add_argument("--clients", type=int, default=2, help="clients (default 2)")
    parser.add_argument("--without", action="append", default=[], metavar="FAULT", help="leave a fault out; repeat it")
    parser.add_argument("--keep", type=Path, help="a new folder to keep logs and evidence in")
    return parser.parse_args(words)


def main() -> int:
    """Run; returns the exit code."""
    arguments = parse()
    seed = secrets.randbelow(1_000_000) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary) / "chaos"
        with Site(
            seed,
            folder,
            workers=arguments.workers,
            clients=arguments.clients,
            rate=arguments.rate,
        ) as site:
            for worker in site.workers:
                worker.ready()
            site.start_load()
            striker = Striker(site, seed, arguments.gap, without=frozenset(arguments.without))
            striker.strike_until(time.time() + arguments.minutes * 60)
            site.stop_load()
            _settle(site, striker, arguments.settle)
            judge = _judge(site, striker)
            refused = site.receiver.refused
    print("\n".join(report.table(seed, arguments.minutes, striker, judge.verdict, refused)))
    print("\n".join(report.findings(judge.verdict)))
    print(f"seed {seed}: {'clean' if judge.verdict.clean else 'NOT clean'}")
    return 0 if judge.verdict.clean else 1


if __name__ == "__main__":
    sys.exit(main())
