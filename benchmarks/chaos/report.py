"""Prints what came of a run."""

from __future__ import annotations

from collections import Counter

from benchmarks.chaos.faults import Striker
from benchmarks.chaos.verdict import Verdict

#: How many findings of each sort are shown.
_SHOWN = 20


def table(seed: int, minutes: float, striker: Striker, verdict: Verdict, refused: int) -> list[str]:
    """Return the lines of the report, as a table in Markdown."""
    ended = ", ".join(f"{count} {status}" for status, count in sorted(verdict.ended.items()))
    rows = [
        ("seed", str(seed)),
        ("minutes of load and faults", f"{minutes:g}"),
        ("tasks submitted", f"{verdict.submitted}, of which {verdict.rows} were committed"),
        ("tasks ended", f"{verdict.ended.total()} ({ended})"),
        ("ended as ERROR because a fault struck them", str(verdict.excused)),
        ("tasks wrong", str(len(verdict.wrong))),
        ("tasks stuck", str(len(verdict.stuck))),
        ("deliveries owed", str(verdict.owed)),
        ("deliveries told", f"{verdict.told}; {refused} calls were refused by the receiver and came again"),
        ("deliveries missing", str(len(verdict.untold))),
        ("deliveries out of order", str(len(verdict.disordered))),
        ("log lines owed", str(verdict.lines)),
        ("log lines missing", str(len(verdict.missing))),
        ("longest time from a kill to the settled row", f"{verdict.slowest:.1f} s"),
        ("workers that Celery ended by itself, and that were started again", str(len(striker.losses))),
        ("faults", str(len(striker.faults))),
    ]
    counted = Counter(fault.name for fault in striker.faults)
    rows += [(f"- {name}", str(count)) for name, count in sorted(counted.items())]
    width = max(len(name) for name, _ in rows)
    second = max(len(value) for _, value in rows)
    return [
        f"| {'what':<{width}} | {'how many':<{second}} |",
        f"| {'-' * width} | {'-' * second} |",
        *(f"| {name:<{width}} | {value:<{second}} |" for name, value in rows),
    ]


def findings(verdict: Verdict) -> list[str]:
    """Return the lines that say what was wrong."""
    lines: list[str] = []
    for title, found in (
        ("wrong", verdict.wrong),
        ("stuck", verdict.stuck),
        ("log line missing", verdict.missing),
        ("not told", verdict.untold),
        ("out of order", verdict.disordered),
    ):
        lines += [f"{title}: {told}" for told in found[:_SHOWN]]
        if len(found) > _SHOWN:
            lines.append(f"{title}: and {len(found) - _SHOWN} more")
    return lines
