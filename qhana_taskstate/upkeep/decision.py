"""What a round of upkeep has to do, decided from what was read.

It knows no database and no broker.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto

from ..store.closing.holds import Hold
from ..store.executions.heartbeats import Lease
from ..store.executions.registration import later
from ..store.executions.waiting import Overdue, Waiting
from .leader import Glance


class Turn(Enum):
    """What a process does in this round."""

    #: Another process does the chores.
    FOLLOW = auto()
    #: There are no chores.
    REST = auto()
    #: This process does them, if it gets the right to.
    LEAD = auto()


def decide_turn(seen: Glance, owner: str, *, takes_over: bool, prunes: bool) -> Turn:
    """Decide what a process does in this round.

    Args:
        seen: What it has seen at first.
        owner: Its own name.
        takes_over: Whether it takes the chores over from the process that does them.
        prunes: Whether old tasks are to be removed now.
    """
    led = seen.until is not None and seen.owner != owner and seen.until > seen.moment
    if led and not takes_over:
        return Turn.FOLLOW
    return Turn.REST if seen.idle and not prunes else Turn.LEAD


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What was read for one round.

    Attributes:
        leases: Running executions.
        holds: Submissions that go on.
        overdue: Executions that wait beyond their deadline.
        went_back: Executions that wait, whose worker gave their message back to the broker.
        uncopied: Ids of ended tasks whose `ProcessingTask` row does not show it yet.
    """

    leases: Sequence[Lease] = ()
    holds: Sequence[Hold] = ()
    overdue: Sequence[Overdue] = ()
    went_back: Sequence[Waiting] = ()
    uncopied: Sequence[int] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Chores:
    """What one round does, in this order.

    Attributes:
        lost: Executions that lost their worker.
        abandoned: Submissions whose client died.
        given_up: Executions that nobody began before their deadline.
        sought: Executions whose message went back to the broker and is looked for there.
        shown: Ids of tasks whose end is copied to their `ProcessingTask` row.
    """

    lost: Sequence[Lease] = ()
    abandoned: Sequence[Hold] = ()
    given_up: Sequence[Overdue | Waiting] = ()
    sought: Sequence[Waiting] = ()
    shown: Sequence[int] = ()


def decide_chores(
    observed: Observed,
    *,
    lost: Sequence[Lease],
    quiet: Collection[str],
    moment: datetime,
    sought_for: timedelta | None,
) -> Chores:
    """Decide what is done about what was read.

    Args:
        observed: What was read.
        lost: Of the running executions those that are silent and whose process gives no proof of life.
        quiet: Ids of the holds whose lease has run out.
        moment: Now, by the database's clock.
        sought_for: For how long after it could have been begun a message is looked for; None if the broker cannot be
            asked.
    """
    sought = [one for one in observed.went_back if sought_for is not None and moment < _due(one) + sought_for]
    return Chores(
        lost=lost,
        abandoned=[hold for hold in observed.holds if hold.id in quiet],
        given_up=[*observed.overdue, *(one for one in observed.went_back if one not in sought)],
        sought=sought,
        shown=observed.uncopied,
    )


def _due(message: Waiting) -> datetime:
    return later(message.published_at, message.eta)
