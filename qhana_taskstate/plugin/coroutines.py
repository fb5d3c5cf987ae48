"""Runs what an `async def` plugin function returns, from code that is not asynchronous."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

R = TypeVar("R")


def run_coroutine(coroutine: Coroutine[Any, Any, R]) -> R:
    """Run a coroutine to its end in an event loop of its own, with the context of the caller.

    Context means contextvars: the running execution and its session are the same inside.

    Args:
        coroutine: Not awaited yet.

    Returns:
        What it returns.

    Raises:
        BaseException: Whatever it raises.
    """
    threads = _native_threads()
    if threads is not None:
        result: R = threads(contextvars.copy_context().run, asyncio.run, coroutine)
        return result
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    # An eager task that was started inside a loop: one thread runs one loop.
    with ThreadPoolExecutor(max_workers=1) as executor:
        return executor.submit(contextvars.copy_context().run, asyncio.run, coroutine).result()


def _native_threads() -> Callable[..., Any] | None:
    """Return how to run a function in a thread of the system, where gevent has made threads greenlets.

    Greenlets share one thread, and Python keeps the running loop by thread: a second one would be refused.
    """
    if "gevent.monkey" not in sys.modules:
        return None
    gevent = sys.modules["gevent"]
    if not sys.modules["gevent.monkey"].is_module_patched("threading"):
        return None
    run: Callable[..., Any] = gevent.get_hub().threadpool.apply
    return lambda function, *args: run(function, args)
