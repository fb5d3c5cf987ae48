"""The thread of a process: renews leases, writes reports, wakes the deliveries, takes its part in the upkeep."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from ..context.execution import Execution
from ..database.engine import Database
from ..facts import ExecutionKey, TaskRef
from ..liveness.advisory_lock import Voucher
from ..liveness.process import this_host
from ..settings.values import Settings
from ..store import reports
from ..store.closing.holds import renew_hold
from ..store.executions import heartbeats
from .background_write import attempt_write
from .backlog import Backlog
from .exits.stacks import is_on_stack
from .this_process import own_key, own_process
from .upkeep_part import UpkeepPart

#: Between two messages of one process that wake the deliveries, in seconds.
_WAKE_GAP_SECONDS = 0.5


#: For how long the end of the thread is waited for, in seconds; it may wait for a lock or a connection.
_STOP_SECONDS: Final = 10.0


#: For how long after its last execution a process looks for some that are said to run there, in `lost_after`.
_SWEEP: Final = 3.0


#: Between two looks of a process that ends, in seconds.
_EXIT_PAUSE_SECONDS = 0.01


class Served(Protocol):
    """What the thread needs of the recorder that it serves.

    Attributes:
        settings: The settings.
        database: Where to write.
        backlog: What waits for the database.
        upkeep_part: What it takes part in.
        wake_deliveries: Lets some worker tell subscribers.
        active_at: When an execution last began or ran here, by the monotonic clock.
    """

    settings: Settings
    database: Database
    backlog: Backlog
    upkeep_part: UpkeepPart
    wake_deliveries: Callable[[], None]
    active_at: float

    def flush(self, execution: Execution) -> None:
        """Write what an execution reported so far."""

    def end_unseen(self, execution: Execution) -> None:
        """Record the end of an execution that Celery did not signal."""


class Pulse:
    """A daemon thread that renews leases and writes reports of the executions of this process."""

    def __init__(self, recorder: Served) -> None:
        self._recorder = weakref.ref(recorder)
        self._settings = recorder.settings
        self._running: set[Execution] = set()
        #: Their tasks and keys, and how many runs each has; never changed by who is handed it.
        self.running_here: Counter[tuple[TaskRef, ExecutionKey]] = Counter()
        #: Executions that had left the tracer at the last turn; only the thread asks.
        self._leaving: weakref.WeakSet[Execution] = weakref.WeakSet()
        self._holds: set[str] = set()
        self._canvases: set[int] = set()
        self._owes = False
        self._is_waking = False
        self._woke = 0.0
        self.does_upkeep = False
        self._stopped = False
        #: Holds the lock that proves to other machines that this process is alive.
        self.voucher = Voucher()
        self._guard = threading.Lock()
        self._pid = os.getpid()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="qhana_taskstate-pulse", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs in this very process; it does not survive a fork."""
        return self._pid == os.getpid() and self._thread.is_alive()

    def stop(self) -> None:
        """End the thread after what it is doing now."""
        self._stopped = True
        self._wake.set()
        if self.alive and threading.current_thread() is not self._thread:
            self._thread.join(_STOP_SECONDS)

    def add(self, execution: Execution) -> None:
        """Take care of an execution."""
        with self._guard:
            if execution not in self._running:
                self._running.add(execution)
                self.running_here[execution.ref, execution.key] += 1

    def remove(self, execution: Execution) -> None:
        """Leave an execution alone."""
        with self._guard:
            if execution in self._running:
                self._running.remove(execution)
                self.running_here[execution.ref, execution.key] -= 1
                if not self.running_here[execution.ref, execution.key]:
                    del self.running_here[execution.ref, execution.key]

    def runs(self, ref: TaskRef, key: ExecutionKey) -> bool:
        """Whether an execution goes on in this process, or its end waits here to be written."""
        return (ref, key) in self.running_here

    def _sweeps(self, recorder: Served, swept: float) -> bool:
        """Whether to look for executions that are said to run here; only while there may be some."""
        moment = time.monotonic()
        pause = max(recorder.upkeep_part.interval_seconds, self._settings.heartbeat_seconds)
        # Long enough to see what ran last fall silent.
        return moment - swept >= pause and moment - recorder.active_at <= _SWEEP * self._settings.lost_after_seconds

    def _has_left(self, execution: Execution) -> bool:
        """Whether an execution left the tracer without a signal that reached us, though Celery had time to send it."""
        if execution.task is None or is_on_stack(execution.task, execution.request):
            return False
        # Asked afterwards: what takes it off the stack has ended it before.
        with self._guard:
            left = execution in self._running and not (execution.closed or execution.postponed)
        if left and execution not in self._leaving:
            # A failure outside of the body is signalled a moment later.
            self._leaving.add(execution)
            return False
        return left

    def owe(self) -> None:
        """Wake the deliveries at the next turn, which comes at once unless they were woken a moment ago."""
        self._owes = True
        if time.monotonic() - self._woke >= _WAKE_GAP_SECONDS:
            self._wake.set()

    def wake_now(self, seconds: float) -> None:
        """Wake the deliveries if they are still to be woken, and wait until that is done, so many seconds at most."""
        deadline = time.monotonic() + seconds
        self._wake.set()
        # In this order: the thread says that it wakes them before it says that nothing is owed.
        while (self._owes or self._is_waking) and self.alive and time.monotonic() < deadline:
            time.sleep(_EXIT_PAUSE_SECONDS)

    def _wake_owed(self, recorder: Served) -> None:
        self._is_waking = True
        try:
            if self._owes:
                self._owes = False
                self._woke = time.monotonic()
                attempt_write(recorder.backlog, recorder.wake_deliveries)
        finally:
            self._is_waking = False

    def note_canvas(self, task_id: int) -> None:
        """Show at the next turn how far the members of a task have come, and what they logged."""
        with self._guard:
            self._canvases.add(task_id)

    def add_hold(self, hold_id: str) -> None:
        """Renew the lease of a submission."""
        with self._guard:
            self._holds.add(hold_id)

    def remove_hold(self, hold_id: str) -> None:
        """Leave a submission alone."""
        with self._guard:
            self._holds.discard(hold_id)

    def _run(self) -> None:
        try:
            self._turn_until_left()
        finally:
            self.voucher.close()

    def _turn_until_left(self) -> None:
        beaten = looked = swept = time.monotonic()
        interval = min(self._settings.flush_interval_seconds, self._settings.heartbeat_seconds)
        while True:
            self._wake.wait(interval)
            self._wake.clear()
            recorder = self._recorder()
            if recorder is None or self._stopped:
                return
            with self._guard:
                running = list(self._running)
                holds = list(self._holds)
                canvases, self._canvases = self._canvases, set()
            beats = bool(running or holds) and time.monotonic() - beaten >= self._settings.heartbeat_seconds
            looks = self.does_upkeep and time.monotonic() - looked >= recorder.upkeep_part.interval_seconds
            if not recorder.backlog.catch_up():
                # What follows would only wait for the same database.
                with self._guard:
                    self._canvases |= canvases
                del recorder
                continue
            attempt = partial(attempt_write, recorder.backlog)
            if beats and running:
                attempt(partial(self.voucher.stand, recorder.database, own_key()))
            elif looks:
                # Before the pool is asked: what this thread took from it would stay there beside the task's.
                attempt(partial(self.voucher.stand_first, recorder.database, own_key()))
            # So that a pool child needs two connections: the one of its task and this one.
            with recorder.database.lending(self.voucher.connection):
                for execution in running:
                    if self._has_left(execution):
                        attempt(partial(recorder.end_unseen, execution))
                    elif execution.dirty:
                        attempt(partial(recorder.flush, execution))
                for task_id in canvases:
                    attempt(partial(_show_canvas, recorder, task_id))
                self._wake_owed(recorder)
                if beats:
                    beaten = time.monotonic()
                    attempt(partial(_beat, recorder, running, holds))
                if running:
                    recorder.active_at = time.monotonic()
                if self._sweeps(recorder, swept):
                    swept = time.monotonic()
                    attempt(partial(recorder.upkeep_part.settle_own, this_host(), *own_process(), self.runs))
                if looks:
                    looked = time.monotonic()
                    attempt(recorder.upkeep_part.turn)
            del recorder


def _show_canvas(recorder: Served, task_id: int) -> None:
    with recorder.database.transaction() as connection:
        reports.show_canvas(connection, task_id, counts_members=recorder.settings.canvas_progress)


def _beat(recorder: Served, running: list[Execution], holds: list[str]) -> None:
    with recorder.database.transaction() as connection:
        heartbeats.beat(connection, [(execution.ref, execution.key) for execution in running if execution.known])
        for hold_id in holds:
            renew_hold(connection, hold_id)
