"""The rows that say whether a message which wakes the deliveries is on its way, and until when."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, Connection, or_, update

from ...database.inserts import insert_absent
from ...database.tables.upkeep import upkeep_table
from ..claim import is_owed, next_due

#: Names of the rows that say until when a message that wakes the deliveries is on its way, and when one arrives.
_WAKE: Final = "deliver"


_LATER_WAKE: Final = "deliver later"


#: The longest wait that is left to a countdown of Celery's; what is due later is found by upkeep.
LONGEST_COUNTDOWN_SECONDS: Final = 10.0


def announce_wake(connection: Connection, moment: datetime, *, lost_after_seconds: float) -> bool:
    """Note that a message which wakes the deliveries is on its way, unless one is already.

    Args:
        connection: In whose transaction to write.
        moment: Now, by the database's clock.
        lost_after_seconds: After how long that message counts as lost.

    Returns:
        Whether it is to be sent.
    """
    until = moment + timedelta(seconds=lost_after_seconds)
    return _note_wake(connection, _WAKE, until, upkeep_table.c.until <= moment)


def announce_later_wake(connection: Connection, moment: datetime, arrives: datetime) -> bool:
    """Note that a message which wakes the deliveries arrives later, unless another one arrives earlier."""
    other = or_(upkeep_table.c.until <= moment, upkeep_table.c.until > arrives)
    return _note_wake(connection, _LATER_WAKE, arrives, other)


def announce_next(connection: Connection, moment: datetime, *, lost_after_seconds: float) -> float | None:
    """Note the message that wakes the deliveries for what is due next, if that is soon.

    Returns:
        After how many seconds it is to arrive; None if none is to be sent.
    """
    if is_owed(connection, moment):
        return 0.0 if announce_wake(connection, moment, lost_after_seconds=lost_after_seconds) else None
    due = next_due(connection, moment)
    if due is None or due - moment > timedelta(seconds=LONGEST_COUNTDOWN_SECONDS):
        return None
    return (due - moment).total_seconds() if announce_later_wake(connection, moment, due) else None


def note_woken(connection: Connection, moment: datetime) -> None:
    """Note that a message which wakes the deliveries has arrived: what is owed from now on needs another one."""
    connection.execute(
        update(upkeep_table).where(upkeep_table.c.name == _WAKE, upkeep_table.c.until > moment).values(until=moment)
    )


def _note_wake(connection: Connection, name: str, until: datetime, free: ColumnElement[bool]) -> bool:
    taken = connection.execute(update(upkeep_table).where(upkeep_table.c.name == name, free).values(until=until))
    if taken.rowcount:
        return True
    return insert_absent(connection, upkeep_table, [{"name": name, "owner": "", "until": until}]) > 0
