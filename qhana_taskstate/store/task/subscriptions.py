"""Removes subscriptions of webhooks to a task."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, CursorResult, delete
from sqlalchemy.orm import Session


def remove(session: Session, subscription_class: type[Any], chosen: ColumnElement[bool]) -> int:
    """Remove subscriptions in a session, which forgets those that it has loaded; does not commit.

    One statement, so that of two callers at once each removes its own.

    Args:
        session: In whose transaction to write.
        subscription_class: The class of the models that is mapped on the table.
        chosen: Which ones.

    Returns:
        How many were removed.
    """
    removed: CursorResult[Any] = session.execute(delete(subscription_class).where(chosen))  # type: ignore[assignment]
    return removed.rowcount
