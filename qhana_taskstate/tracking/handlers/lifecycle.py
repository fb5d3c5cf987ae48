"""Handlers of signals about workers and their processes, and what they do."""

from __future__ import annotations

import logging
import os
from typing import Any, Final

from sqlalchemy.exc import DBAPIError

from ... import registry
from ...broker import workers
from ...database import schema
from ...errors import DatabaseUnavailableError, SchemaError, SettingsError
from ...plugin import chords
from ...recording.execution_recorder import ExecutionRecorder
from .. import worker_requests
from ..listener import Listener, find, never_fails
from ..selection import warn_of_unmatched

logger = logging.getLogger(__name__)

#: Seconds between two tries of a prefork pool's parent to write what waits.
_CATCH_UP_SECONDS: Final = 1.0


@never_fails
def on_worker_init(sender: Any, **_: Any) -> None:
    """Check settings and schema when a worker starts; a worker with wrong settings does not."""
    try:
        listener = find(sender.app)
        if listener is not None:
            prepare_worker(listener)
    except SettingsError as exc:
        raise SystemExit(f"the worker does not start: {exc}") from exc


def prepare_worker(listener: Listener) -> None:
    """Check the schema of the database, and log what is wrong with it; install what has to be there before the pool."""
    recorder = listener.recorder
    recorder.parent_pid = os.getpid()
    warn_of_unmatched(listener.app, recorder.settings.track)
    try:
        schema.check(recorder.database)
    except DatabaseUnavailableError as exc:
        logger.critical(
            "the worker starts without its database; what it has to say waits for %g s at most: %s",
            recorder.settings.keep_facts_seconds,
            exc,
        )
    except SchemaError as exc:
        recorder.backlog.note_missing_schema(exc)
    except DBAPIError as exc:
        logger.critical("task states cannot be recorded: %s", exc)
    finally:
        # Nothing of ours may be open when pool children are forked.
        recorder.database.close()
    worker_requests.install(listener.app)
    chords.install(listener.app)
    workers.install()


@never_fails
def on_worker_process_init(sender: Any = None, **_: Any) -> None:
    """Give a child of a prefork pool connections of its own, and let it take part in upkeep."""
    listener = find(None)
    if listener is not None:
        # One task at a time: beside it, the thread that renews leases has a connection of its own.
        listener.recorder.database.keep_connections(1)
        listener.recorder.serve_upkeep()


@never_fails
def on_worker_ready(sender: Any, **_: Any) -> None:
    """Let a worker whose pool has no processes of its own take part in upkeep.

    Never the parent of a prefork pool: a child forked while a thread there talks to the database is broken.
    """
    listener = find(sender.app)
    if listener is None:
        return
    if type(sender.pool).__module__.endswith("prefork"):
        _catch_up_from_event_loop(listener.recorder, sender.timer)
    else:
        listener.recorder.serve_upkeep()


def _catch_up_from_event_loop(recorder: ExecutionRecorder, timer: Any) -> None:
    """Write what waits for the database from the event loop of a prefork pool's parent.

    Celery says that it is ready again after each reconnection, and may have emptied the timer before.
    """
    if recorder.catching_up is None or recorder.catching_up.canceled:
        recorder.catching_up = timer.call_repeatedly(_CATCH_UP_SECONDS, recorder.catch_up)


@never_fails
def on_leaving(sender: Any = None, **_: Any) -> None:
    """Write what waits for the database before this process ends."""
    # Not its parts, which would be made for this.
    state = registry.find()
    if state is not None:
        state.leave()
