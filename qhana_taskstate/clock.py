"""Moments: now, and any moment as aware UTC."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> datetime:
    """Return this moment as an aware UTC time."""
    return datetime.now(UTC)


def as_utc(moment: datetime) -> datetime:
    """Return the same moment as an aware UTC time; a naive one counts as UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
