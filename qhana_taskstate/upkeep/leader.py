"""Who does the upkeep at the moment, and what there is to do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, case, literal, or_, select, update

from ..database.dialects import database_clock, limit_lock_wait, moment_of_clock
from ..database.inserts import insert_absent
from ..database.tables.deliveries import change_table, delivery_table
from ..database.tables.executions import execution_table
from ..database.tables.jobs import hold_table, job_table
from ..database.tables.upkeep import upkeep_table

#: Name of the row that says who does the chores.
_RESCUE: Final = "rescue"


def lead(connection: Connection, owner: str, moment: datetime, seconds: float) -> bool:
    """Take or renew the right to do the chores of upkeep.

    Args:
        connection: In whose transaction to write.
        owner: Who asks.
        moment: Now, by the database's clock.
        seconds: How long the right lasts.

    Returns:
        False while somebody else has it.

    Raises:
        sqlalchemy.exc.DBAPIError: If somebody came to a halt while taking it, so that it cannot be looked at.
    """
    limit_lock_wait(connection)
    until = moment + timedelta(seconds=seconds)
    if insert_absent(connection, upkeep_table, [{"name": _RESCUE, "owner": owner, "until": until}]):
        return True
    taken = connection.execute(
        update(upkeep_table)
        .where(
            upkeep_table.c.name == _RESCUE,
            or_(upkeep_table.c.owner == owner, upkeep_table.c.until < moment),
        )
        .values(owner=owner, until=until)
    )
    return taken.rowcount > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """What upkeep sees at first.

    Attributes:
        moment: Now, by the database's clock.
        owner: Who does the chores; None if nobody ever did.
        until: How long.
        idle: Nothing is open, nothing is to be shown, and nobody is to be told: there are no chores.
    """

    moment: datetime
    owner: str | None
    until: datetime | None
    idle: bool


def glance(connection: Connection) -> Glance:
    """Look whether there is anything for upkeep to do, in one statement that does not grow with the tables."""
    clock = database_clock(connection.dialect.name)
    chores = or_(
        select(literal(1)).where(execution_table.c.closed_at.is_(None)).exists(),
        select(literal(1)).select_from(hold_table).exists(),
        select(literal(1)).where(job_table.c.end_copied.is_(False), job_table.c.end_status.is_not(None)).exists(),
        select(literal(1)).select_from(change_table).exists(),
        select(literal(1)).where(delivery_table.c.due_at.is_not(None)).exists(),
    )
    ours = upkeep_table.c.name == _RESCUE
    row = connection.execute(
        select(
            clock,
            select(upkeep_table.c.owner).where(ours).scalar_subquery().label("owner"),
            select(upkeep_table.c.until).where(ours).scalar_subquery().label("until"),
            case((chores, 1), else_=0).label("busy"),
        )
    ).one()
    return Glance(moment=moment_of_clock(row[0]), owner=row.owner, until=row.until, idle=not row.busy)
