"""Lets objects put right, in a forked child, what only holds in the process that was forked."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Final

_methods: Final[list[weakref.WeakMethod[Callable[[], None]]]] = []


def call_in_child(method: Callable[[], None]) -> None:
    """Let a bound method be called in every child that is forked while its object exists.

    The child has the forking thread alone: a lock that another thread held there is never released, and threads are
    gone. The method must not wait for anything.

    Args:
        method: Takes no arguments.
    """
    _methods[:] = [known for known in _methods if known() is not None]
    _methods.append(weakref.WeakMethod(method))


def _call_all() -> None:
    for known in _methods:
        method = known()
        if method is not None:
            method()


os.register_at_fork(after_in_child=_call_all)
