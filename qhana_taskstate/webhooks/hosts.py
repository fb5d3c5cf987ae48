"""How many calls a host gets, and when it rests."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from sqlalchemy import Connection, and_, func, or_, select, update

from ..database.inserts import insert_absent
from ..database.tables.base import NAME_LENGTH
from ..database.tables.deliveries import delivery_table, host_table
from .http.answers import Verdict

#: Calls under way to one host: to one that behaves, and to one of which so many calls in a row have failed.
CALLS_PER_HOST: Final = 4


_CALLS_PER_FAILING_HOST: Final = 1


_FAILING: Final = 3


#: After so many failures in a row a host is left alone, for so many seconds at first and at most.
_FAILURES: Final = 10


_FIRST_REST_SECONDS: Final = 30.0


_LONGEST_REST_SECONDS: Final = 600.0


def blocked(moment: datetime) -> Any:
    """Return the query for the hosts that may get no call now."""
    calls = (
        select(delivery_table.c.host, func.count().label("count"))
        .where(delivery_table.c.leased_until > moment)
        .group_by(delivery_table.c.host)
        .subquery("calls")
    )
    under_way = func.coalesce(calls.c.count, 0)
    return (
        select(host_table.c.name)
        .outerjoin(calls, calls.c.host == host_table.c.name)
        .where(
            or_(
                host_table.c.closed_until > moment,
                under_way >= CALLS_PER_HOST,
                and_(host_table.c.failures >= _FAILING, under_way >= _CALLS_PER_FAILING_HOST),
            )
        )
    )


def host_of(webhook_href: str) -> str:
    """Return host and port of a URL; "" for what is no URL."""
    try:
        return urlsplit(webhook_href).netloc.rpartition("@")[2].lower()[:NAME_LENGTH]
    except ValueError:
        return ""


def may_be_called(connection: Connection, host: str, moment: datetime) -> bool:
    """Tell whether a host may get a call now; holds its row, so that two who ask at once count each other."""
    locked = select(host_table.c.name).where(host_table.c.name == host).with_for_update()
    if connection.execute(locked).first() is None:
        insert_absent(connection, host_table, [{"name": host, "failures": 0}])
        connection.execute(locked)
    # In a statement of its own, which sees what was committed before the lock was had.
    return connection.execute(blocked(moment).where(host_table.c.name == host)).first() is None


def judge_host(connection: Connection, host: str, verdict: Verdict, moment: datetime) -> None:
    known = connection.execute(select(host_table).where(host_table.c.name == host).with_for_update()).one_or_none()
    # A call that was refused was not made, and says nothing of the host.
    if known is None or verdict.kind == "refused" or (not verdict.counts_against_host and not known.failures):
        return
    failures = known.failures + 1 if verdict.counts_against_host else 0
    closed_until = None
    if failures >= _FAILURES:
        rest = min(_FIRST_REST_SECONDS * 2 ** min(failures - _FAILURES, 10), _LONGEST_REST_SECONDS)
        closed_until = moment + timedelta(seconds=rest)
    connection.execute(
        update(host_table).where(host_table.c.name == host).values(failures=failures, closed_until=closed_until)
    )
