"""Polling for the tests: `wait_until(what, predicate)`."""

from __future__ import annotations

from qhana_taskstate.testing.waiting import wait_until

__all__ = ["wait_until"]
