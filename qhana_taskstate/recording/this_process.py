"""This process, as it is written into the rows of executions that run in it."""

from __future__ import annotations

import functools
import os

from ..liveness.advisory_lock import key_of
from ..liveness.process import started_at, this_host
from ..store.executions import begin


@functools.lru_cache(maxsize=4)
def runner(worker: str | None, pid: int) -> begin.Runner:
    """Describe this process.

    Args:
        worker: Host name of the Celery worker.
        pid: This process's id; a forked child asks for itself.
    """
    return begin.Runner(worker=worker, host=this_host(), pid=pid, pid_started=_started_at(pid))


@functools.lru_cache(maxsize=1)
def _started_at(pid: int) -> float | None:
    # Cached by pid: a forked child asks for itself.
    return started_at(pid)


def own_process() -> tuple[int, float | None]:
    pid = os.getpid()
    return pid, _started_at(pid)


def own_key() -> int | None:
    return key_of(this_host(), *own_process())
