"""Commands for those who run a deployment: `upgrade`, `upkeep`, `doctor` and `prune`."""

from __future__ import annotations

import dataclasses
import time
from datetime import timedelta
from typing import Any

import click

from ...facade import TaskState
from ..context import as_json_option, taskstate_of, with_state
from ..doctor import examine
from ..group import Failure, command
from ..redaction import without_passwords
from ..text.printing import print_json, print_lines
from .tasks import age


@command("upgrade")
@click.pass_context
def upgrade(ctx: click.Context, /, **_: Any) -> None:
    """Make or bring up to date the tables in the database. Safe to repeat, and twice at once."""
    state = taskstate_of(ctx, ready=False)
    state.upgrade()
    click.echo(f"the tables in {state.database.name} are up to date")


@command("upkeep")
@click.option("--once", is_flag=True, help="Look once; one look alone gives nobody up, it only brings rows up to date.")
@click.option("--seconds", type=click.FloatRange(min=0), help="Stop after so many seconds; by default never.")
@with_state
def upkeep(ctx: click.Context, state: TaskState, /, once: bool, seconds: float | None, as_json: bool, **_: Any) -> None:
    """Find work that was lost, and settle it, until interrupted. Workers do so by themselves."""
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        settled = state.upkeep()
        if settled is None and once:
            raise Failure("the database cannot be reached now; see the log")
        if settled or once:
            told = dataclasses.asdict(settled) if settled is not None else {}
            print_json(told) if as_json else print_lines([", ".join(f"{n} {name}" for name, n in told.items())])
        if once or (deadline is not None and time.monotonic() >= deadline):
            return
        time.sleep(state.parts.upkeep.interval_seconds)


@command("doctor")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1),
    default=5.0,
    show_default=True,
    help="Seconds to wait for workers, and for the probe.",
)
@click.option("--no-probe", is_flag=True, help="Send no probe canvas through the broker.")
@as_json_option
@click.pass_context
def doctor_(ctx: click.Context, /, timeout: float, no_probe: bool, as_json: bool, **_: Any) -> None:
    """Examine the set-up, and say what to change. Exit code 1 if something is wrong.

    It looks at the tables, the clocks of workers and database, time limits, late acknowledgement, who consumes the
    queue of the webhooks, signs of life, late deliveries and forgotten tasks, and sends a small canvas through the
    broker and back. With --json an array of objects.
    """
    findings = examine.Doctor(taskstate_of(ctx, ready=False), timeout=timeout, sends_probe=not no_probe).examine()
    told = [
        {name: without_passwords(ctx, value) if isinstance(value, str) else value for name, value in found.items()}
        for found in map(dataclasses.asdict, findings)
    ]
    if as_json:
        print_json(told)
    else:
        for found in told:
            click.echo(f"{'ok   ' if found['ok'] else 'WRONG'}  {found['check']}: {found['seen']}")
            if found["advice"]:
                click.echo(f"         {found['advice']}")
    if not all(finding.ok for finding in findings):
        ctx.exit(Failure.exit_code)


@command("prune")
@click.option(
    "--older-than",
    required=True,
    metavar="AGE",
    callback=lambda _ctx, _param, value: age(value),
    help="Tasks that ended longer ago go: a number with s, m, h, d or w, such as 30d or 12h.",
)
@click.option("--all", "strangers", is_flag=True, help="Also tasks that nobody gave to the recorder.")
@click.option("--dry-run", is_flag=True, help="Only count what would go.")
@with_state
def prune(
    ctx: click.Context,
    state: TaskState,
    /,
    older_than: timedelta,
    strangers: bool,
    dry_run: bool,
    as_json: bool,
    **_: Any,
) -> None:
    """Remove tasks that ended long ago, with all their rows.

    Tasks with an open execution, or whose subscribers have still to be told, stay. Output files are reported to the
    application and not deleted. It works in small steps, waits for nobody, and can be interrupted and repeated.
    """
    pruned = state.prune(older_than, strangers=strangers, dry_run=dry_run)
    if as_json:
        print_json({**dataclasses.asdict(pruned), "dry_run": dry_run})
        return
    told = "would be removed" if dry_run else "removed"
    click.echo(f"{_count(pruned.tasks, 'task')} {told}; {_files(pruned.outputs)} reported to the application")
    reasons = {
        "with an open execution": pruned.open,
        "whose subscribers have still to be told": pruned.pending,
        "that somebody is changing now": pruned.busy,
        "that rows of other tables refer to": pruned.referenced,
    }
    for reason, count in reasons.items():
        if count:
            click.echo(f"{_count(count, 'task')} kept {reason}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _files(number: int) -> str:
    return f"{_count(number, 'output file')} {'is' if number == 1 else 'are'}"
