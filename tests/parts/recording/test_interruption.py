"""A limit or a cancellation that an error of the database hides."""

from __future__ import annotations

import asyncio

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy.exc import OperationalError

from qhana_taskstate.recording.exits.interruption import interruption_behind


def _hiding(struck: BaseException) -> BaseException:
    """Return the error of a rollback that failed since something struck in the middle of a statement."""
    try:
        try:
            raise struck
        except BaseException:
            raise OperationalError("ROLLBACK", {}, Exception("another command is already in progress"))  # noqa: B904
    except OperationalError as exc:
        return exc


@pytest.mark.parametrize("struck", [SoftTimeLimitExceeded(), asyncio.CancelledError(), KeyboardInterrupt()])
def test_what_struck_in_a_statement_is_found(struck: BaseException) -> None:
    assert interruption_behind(_hiding(struck)) is struck


def test_other_causes_are_none() -> None:
    assert interruption_behind(_hiding(ConnectionResetError())) is None


def test_what_was_in_flight_before_is_none() -> None:
    struck = SoftTimeLimitExceeded()
    assert interruption_behind(_hiding(struck), struck) is None
