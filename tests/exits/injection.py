"""Runs one execution after another in a pool of this process's own kind, and strikes once at a line of ours in each.

The lines are counted by a trace function that is set in `task_prerun` and sees only this package: the n-th line event
between the begin of `task_prerun` and the end of `task_postrun` raises. The first run of a kind counts and strikes
nothing, so that all lines are known.

Nothing strikes at a `with` line: Python says it once more as the block is left, before `__exit__` is called, and what
a trace function raises there keeps the lock of the block locked for ever.
"""

from __future__ import annotations

import asyncio
import faulthandler
import linecache
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any, Final

from celery import signals
from celery.exceptions import SoftTimeLimitExceeded

import qhana_taskstate

_PACKAGE: Final = str(Path(qhana_taskstate.__file__).parent) + os.sep

#: What strikes.
KINDS: Final = ("exception", "limit", "signal", "cancellation")


class InjectedError(RuntimeError):
    """A fault of ours that strikes at some line."""


class Injector:
    """Strikes in executions whose keywords say where: `strike="exception:17"`; counts lines for `strike="count:…"`."""

    def __init__(self) -> None:
        self._left: dict[int, int] = {}
        self._kinds: dict[int, str] = {}

    def install(self) -> None:
        """Listen before everybody else, and after; SIGUSR2 shows where all threads are."""
        faulthandler.register(signal.SIGUSR2)
        for signal_, handler in ((signals.task_prerun, self._on_prerun), (signals.task_postrun, self._on_postrun)):
            signal_.connect(handler, weak=False, dispatch_uid=f"injector {handler.__name__}")
        # Receivers are called in the order in which they were connected.
        signals.task_prerun.receivers.insert(0, signals.task_prerun.receivers.pop())
        signals.task_prerun.sender_receivers_cache.clear()  # type: ignore[attr-defined]  # not in the stubs

    def _on_prerun(self, task: Any, kwargs: Any = None, **_: Any) -> None:
        kind, _colon, number = str((kwargs or {}).get("strike", "")).partition(":")
        if not kind:
            return
        ident = threading.get_ident()
        self._kinds[ident], self._left[ident] = kind, int(number or 0)
        # Frames that exist are not traced; the handlers that are called next have frames of their own.
        sys.settrace(self._trace)

    def _on_postrun(self, task: Any, kwargs: Any = None, **_: Any) -> None:
        if not str((kwargs or {}).get("strike", "")):
            return
        sys.settrace(None)
        ident = threading.get_ident()
        if self._kinds.pop(ident, "") == "count":
            Path(os.environ["INJECTION_LINES"]).write_text(str(-self._left[ident]))
        self._left.pop(ident, None)

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(_PACKAGE):
            return None
        return self._trace_line

    def _trace_line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event != "line":
            return self._trace_line
        ident = threading.get_ident()
        left = self._left.get(ident)
        if left is None:
            return self._trace_line
        if linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip().startswith("with "):
            # Said again just before the block is left, where Python lets no signal in: a lock would stay locked.
            return self._trace_line
        self._left[ident] = left - 1
        if left == 1:
            self._strike(self._kinds[ident])
        return self._trace_line

    def _strike(self, kind: str) -> None:
        match kind:
            case "exception":
                raise InjectedError("struck")
            case "limit":
                raise SoftTimeLimitExceeded()
            case "cancellation":
                raise asyncio.CancelledError("struck")
            case "signal":
                os.kill(os.getpid(), signal.SIGUSR1)
