"""Handlers of signals that tell of workers and their processes."""

from __future__ import annotations

from typing import Any

from ..errors import SettingsError
from .listener import find, never_fails


@never_fails
def on_worker_init(sender: Any, **_: Any) -> None:
    """Check settings and schema when a worker starts; a worker with wrong settings does not."""
    listener = find(sender.app)
    if listener is not None:
        try:
            listener.on_worker_start()
        except SettingsError as exc:
            raise SystemExit(f"the worker does not start: {exc}") from exc


@never_fails
def on_worker_process_init(sender: Any = None, **_: Any) -> None:
    """Give a pool child connections of its own."""
    listener = find(None)
    if listener is not None:
        listener.on_pool_process_start()


@never_fails
def on_worker_ready(sender: Any, **_: Any) -> None:
    """Let a worker whose pool has no processes of its own take part in upkeep.

    Never the parent of a prefork pool: a child forked while a thread there talks to the database is broken.
    """
    listener = find(sender.app)
    if listener is None:
        return
    if type(sender.pool).__module__.endswith("prefork"):
        listener.on_parent_ready(sender.timer)
    else:
        listener.on_ready()


@never_fails
def on_leaving(sender: Any = None, **_: Any) -> None:
    """Let a process that ends say what it still has to say."""
    listener = find(None)
    if listener is not None:
        listener.on_leaving()
