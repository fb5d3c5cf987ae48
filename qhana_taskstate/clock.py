"""Moments: now, and any moment as aware UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

#: Between these every database holds a moment.
EARLIEST: Final = datetime(1, 1, 3, tzinfo=UTC)
FARTHEST: Final = datetime(9999, 12, 30, tzinfo=UTC)


def now() -> datetime:
    """Return this moment as an aware UTC time."""
    return datetime.now(UTC)


def as_utc(moment: datetime) -> datetime:
    """Return the same moment as an aware UTC time; a naive one counts as UTC.

    Celery takes moments up to the end of the year 9999. One that not every database holds, or not every driver reads in
    the time zone of its session, becomes the nearest that they do.
    """
    try:
        utc = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        return FARTHEST if moment.year > 1 else EARLIEST
    return min(max(utc, EARLIEST), FARTHEST)


def after(moment: datetime, seconds: float) -> datetime:
    """Return the moment so many seconds after another, `FARTHEST` at most."""
    try:
        return as_utc(moment + timedelta(seconds=seconds))
    except OverflowError:
        return FARTHEST
