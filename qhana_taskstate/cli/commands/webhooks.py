"""Commands about webhooks: `deliveries` and `replay`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import click

from ...clock import now
from ...database.dialects import database_time
from ...facade import TaskState
from ...webhooks import replay as replay_webhooks
from ...webhooks import views
from ..context import as_json_option, may_exist, taskstate_of, with_state
from ..group import Failure, command
from ..text.printing import painter, print_json, print_lines
from ..text.tables import delivery_json, delivery_table
from ..text.terminal import terminal_columns

#: The same for deliveries.
_LARGEST_DELIVERY_ID: Final = 2**63 - 1


#: For how long `deliveries` collects what changed since a worker looked, in seconds.
_COLLECT_SECONDS: Final = 5.0


@command("deliveries")
@click.option("--task", "task_id", type=int, metavar="ID", help="Only those of this task.")
@click.option("--dead", is_flag=True, help="Only those that were given up.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many at most.")
@with_state
def deliveries_(
    ctx: click.Context, state: TaskState, /, task_id: int | None, dead: bool, limit: int, as_json: bool, **_: Any
) -> None:
    """List webhook deliveries, newest first: one line for each subscription and event.

    A delivery is due, waiting for its next attempt, calling, told (nothing is owed), or dead (given up). Of URLs
    neither credentials nor values of the query are shown. With --json an array of objects.
    """
    found: list[views.DeliveryView] = []
    if task_id is None or may_exist(task_id):
        # What changed since a worker looked is owed, too.
        state.deliverer.collect(_COLLECT_SECONDS)
        with state.database.reading() as connection:
            moment = database_time(connection)
            found = views.views(connection, moment, task_id=task_id, dead=dead, limit=limit)
    if as_json:
        print_json([delivery_json(delivery) for delivery in found])
    elif found:
        print_lines(delivery_table(found, now(), columns=terminal_columns(), paint=painter(ctx)))
    else:
        click.echo("no dead delivery" if dead else "no delivery", err=True)


@command("replay")
@click.argument("delivery_ids", metavar="[DELIVERY_ID]...", nargs=-1, type=int)
@click.option("--all-dead", is_flag=True, help="All deliveries that were given up.")
@click.option("--task", "task_id", type=int, metavar="ID", help="With --all-dead: only those of this task.")
@as_json_option
@click.pass_context
def replay(
    ctx: click.Context,
    /,
    delivery_ids: tuple[int, ...],
    all_dead: bool,
    task_id: int | None,
    as_json: bool,
    **_: Any,
) -> None:
    """Make webhook deliveries once more, whatever became of them; what is sent has a new sequence.

    Their hosts are called again at once. Exit code 1 if a named delivery was not replayed, or none was. With --json
    an object: the ids that were replayed, and why others were not.
    """
    if bool(delivery_ids) == all_dead:
        raise click.UsageError("name deliveries, or pass --all-dead; `taskstate deliveries --dead` lists those")
    if task_id is not None and not all_dead:
        raise click.UsageError("--task goes with --all-dead; a delivery's id says its task")
    state = taskstate_of(ctx)
    wanted = list(dict.fromkeys(delivery_ids))
    replayed = _replay_dead(state, task_id) if all_dead else _replay(state, wanted)
    refused = _why_not(state, [delivery_id for delivery_id in wanted if delivery_id not in replayed])
    if as_json:
        print_json({"replayed": replayed, "refused": refused})
    else:
        for delivery_id, reason in refused.items():
            click.echo(f"delivery {delivery_id} was not replayed: {reason}", err=True)
        if replayed:
            click.echo(f"{len(replayed)} {'delivery' if len(replayed) == 1 else 'deliveries'} will be made once more")
        elif all_dead:
            click.echo("no dead delivery", err=True)
    if refused or not replayed:
        ctx.exit(Failure.exit_code)


def _replay(state: TaskState, delivery_ids: Sequence[int]) -> list[int]:
    possible = [delivery_id for delivery_id in delivery_ids if 0 <= delivery_id <= _LARGEST_DELIVERY_ID]
    return state.recorder.write(
        lambda connection: replay_webhooks.replay(connection, database_time(connection), delivery_ids=possible)
    )


def _replay_dead(state: TaskState, task_id: int | None) -> list[int]:
    if task_id is not None and not may_exist(task_id):
        return []
    with state.database.reading() as connection:
        # One moment for all, so that what is given up anew meanwhile is not replayed without end.
        moment = database_time(connection)
    replayed: list[int] = []
    while True:
        some = state.recorder.write(lambda connection: replay_webhooks.replay(connection, moment, task_id=task_id))
        if not some:
            return sorted(replayed)
        replayed += some


def _why_not(state: TaskState, delivery_ids: Sequence[int]) -> dict[int, str]:
    """Say of deliveries why they could not be replayed."""
    possible = [delivery_id for delivery_id in delivery_ids if 0 <= delivery_id <= _LARGEST_DELIVERY_ID]
    with state.database.reading() as connection:
        known = {
            delivery.id: delivery
            for delivery in views.views(connection, database_time(connection), delivery_ids=possible)
        }
    reasons = {}
    for delivery_id in delivery_ids:
        delivery = known.get(delivery_id)
        if delivery is None:
            reasons[delivery_id] = "there is no such delivery"
        elif not delivery.webhook_href:
            reasons[delivery_id] = "nobody subscribes there any more"
        else:
            reasons[delivery_id] = "a call of it is under way; try again when that has ended"
    return reasons
