"""Waiting for something to become true, by polling."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(what: str, predicate: Callable[[], T], *, timeout: float = 30.0, interval: float = 0.02) -> T:
    """Call `predicate` until its value is true.

    Args:
        what: What is waited for, as it is to stand in the error.
        predicate: Called again and again; its exceptions are not caught.
        timeout: Seconds until the wait is given up.
        interval: Seconds between two calls.

    Returns:
        The first value that is true.

    Raises:
        AssertionError: Nothing came true in time. It names `what` and the last value.
    """
    value = poll(predicate, timeout=timeout, interval=interval)
    if not value:
        raise AssertionError(f"waited {timeout:g} s in vain until {what}; last seen: {value!r}")
    return value


def poll(predicate: Callable[[], T], *, timeout: float, interval: float = 0.02) -> T:
    """Call `predicate` until its value is true or `timeout` seconds are over; returns the last value."""
    deadline = time.monotonic() + timeout
    while True:
        value = predicate()
        if value or time.monotonic() >= deadline:
            return value
        time.sleep(interval)
