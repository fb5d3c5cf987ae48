"""What takes the place of an exception that the worker's parent of Celery 5.5 and 5.6 cannot store."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from billiard.einfo import ExceptionInfo
from billiard.exceptions import WorkerLostError

from qhana_taskstate.tracking.older_celery import exception_of, is_exit, storable, success_was_stored

pytestmark = pytest.mark.versions


def raised(exc: BaseException) -> Any:
    """What a pool child hands to its parent."""
    try:
        raise exc
    except BaseException:
        return ExceptionInfo()


@pytest.mark.parametrize(
    ("exc", "text"),
    [
        (SystemExit(3), "exitcode 3"),
        (SystemExit(), "exitcode 0"),
        (SystemExit("the disk is full"), "exitcode 1"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
    ],
)
def test_an_exit_means_that_the_child_is_lost(exc: BaseException, text: str) -> None:
    given = raised(exc)
    found = storable(given)
    assert is_exit(given) and not is_exit(found)
    assert isinstance(exception_of(found), WorkerLostError)
    assert str(exception_of(found)) == f"Worker exited prematurely: {text}."
    assert found.traceback == given.traceback


def test_another_exception_keeps_its_name_and_text() -> None:
    found = exception_of(storable(raised(asyncio.CancelledError("by the loop"))))
    assert isinstance(found, Exception)
    assert str(found) == "CancelledError('by the loop')"


def test_a_usual_exception_is_left_alone() -> None:
    given = raised(ValueError("x"))
    assert storable(given) is given


@pytest.mark.parametrize(
    ("url", "ignored", "status", "stored"),
    [
        ("redis://", False, "SUCCESS", True),
        ("redis://", False, "PENDING", False),
        ("redis://", True, "SUCCESS", False),
        ("rpc://", False, "SUCCESS", False),
    ],
)
def test_a_success_is_looked_for_where_one_can_be(url: str, ignored: bool, status: str, stored: bool) -> None:
    backend = SimpleNamespace(as_uri=lambda: url, get_task_meta=lambda task_id, cache: {"status": status})
    request = SimpleNamespace(id="a", ignore_result=ignored, task=SimpleNamespace(backend=backend))
    assert success_was_stored(request) is stored


def test_a_result_backend_that_is_away_holds_no_success() -> None:
    request = SimpleNamespace(id="a", ignore_result=False, task=SimpleNamespace(backend=SimpleNamespace(as_uri=str)))
    assert success_was_stored(request) is False
