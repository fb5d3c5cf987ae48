"""What strikes, when, and whom. One thread; faults that last overlap with others of other targets."""

from __future__ import annotations

import heapq
import itertools
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from benchmarks.chaos.site import Site
from qhana_taskstate.testing.container import LocalWorker
from qhana_taskstate.testing.process import LocalProcess

#: What a fault may excuse.
KILL, FREEZE, DATABASE, BROKER, FORGET, CLIENT, RECEIVER, LIMIT, RESULTS = (
    "kill",
    "freeze",
    "database",
    "broker",
    "forget",
    "client",
    "receiver",
    "limit",
    "results",
)


@dataclass(slots=True)
class Fault:
    """One fault that struck.

    Attributes:
        name: Which one.
        groups: What it may excuse.
        at: When it began, seconds since the epoch.
        until: When its cause was gone.
        pids: Processes that it killed or stopped.
    """

    name: str
    groups: frozenset[str]
    at: float
    until: float = float("inf")
    pids: frozenset[int] = frozenset()


@dataclass(order=True, slots=True)
class _Later:
    moment: float
    number: int
    work: Callable[[], None] = field(compare=False)


#: Name of each fault, how often it is chosen, and what it may excuse.
_KINDS: Final[dict[str, tuple[int, frozenset[str]]]] = {
    "child killed": (5, frozenset({KILL})),
    "worker killed": (4, frozenset({KILL})),
    "main process killed": (2, frozenset({KILL})),
    "child stopped for a while": (2, frozenset({FREEZE})),
    "worker stopped for a while": (2, frozenset({FREEZE})),
    "PostgreSQL restarted (fast)": (3, frozenset({DATABASE})),
    "PostgreSQL restarted (immediate)": (3, frozenset({DATABASE})),
    "rows of open tasks locked": (2, frozenset({DATABASE})),
    "connections cut": (2, frozenset({DATABASE})),
    "connections cut in a statement": (3, frozenset({DATABASE})),
    "connections cut before the answer": (3, frozenset({DATABASE})),
    "Redis restarted": (3, frozenset({BROKER})),
    "Redis restarted without its data": (2, frozenset({BROKER, FORGET})),
    "client killed": (2, frozenset({CLIENT})),
    "client killed inside start": (4, frozenset({CLIENT})),
    "receiver refuses": (2, frozenset({RECEIVER})),
    "result backend stopped": (2, frozenset({RESULTS})),
    "result backend killed": (2, frozenset({RESULTS})),
    "soft limit strikes": (6, frozenset({LIMIT})),
}

#: Seconds for which a cut that waits for the next statement may strike.
_CUT_SECONDS: Final = 5.0

#: Within how many seconds a child ends that a soft limit struck while it ran nothing.
_ENDING: Final = 3.0

#: Shortest and longest time in seconds that something is down.
_DOWN: Final = (0.2, 5.0)


class Striker:
    """Strikes at random.

    Args:
        site: Whom.
        seed: Of the order of the faults.
        gap: Mean time between two faults in seconds.
        without: Names of faults that are left out.
    """

    def __init__(self, site: Site, seed: int, gap: float, *, without: frozenset[str] = frozenset()) -> None:
        self._site = site
        self._chance = random.Random(seed)  # noqa: S311  (to be the same again, not to be secret)
        self._gap = gap
        self._names = [name for name in _KINDS if name not in without]
        self._later: list[_Later] = []
        self._numbers = itertools.count()
        self._busy: set[object] = set()
        self.faults: list[Fault] = []
        #: Workers that Celery ended by itself, which ends their processes as a kill does.
        self.losses: list[Fault] = []
        self._pids: dict[LocalWorker, frozenset[int]] = {}
        self._counted = 0.0

    def strike_until(self, moment: float) -> None:
        """Strike again and again until a moment (of `time.time`), and then let everything recover."""
        following = time.time() + self._gap
        while time.time() < moment:
            self._recover()
            self.revive()
            if time.time() >= following:
                following = time.time() + self._chance.uniform(0.3, 1.7) * self._gap
                name = self._chance.choices(self._names, [_KINDS[name][0] for name in self._names])[0]
                self._strike(name)
            time.sleep(0.05)
        while self._later:
            self._recover()
            time.sleep(0.05)
        self.revive()

    def _note_ended_by_limits(self) -> None:
        """Let a limit that ended its child excuse what a kill does; only a child that ran nothing ends by one."""
        for fault in self.faults:
            if LIMIT in fault.groups and time.time() - fault.at < _ENDING and not any(map(_runs, fault.pids)):
                fault.groups |= {KILL}

    def _recover(self) -> None:
        self._note_ended_by_limits()
        while self._later and self._later[0].moment <= time.time():
            heapq.heappop(self._later).work()

    def revive(self) -> None:
        """Start workers and clients again that have ended, as a supervisor does."""
        for worker in self._site.workers:
            if worker not in self._busy and worker.status == "exited":
                # Celery may end by itself when its broker goes away (celery 5.7 with kombu 5.7 does).
                moment = time.time()
                self.losses.append(
                    Fault("worker ended", frozenset({KILL}), moment - 2, moment, self._pids.get(worker, frozenset()))
                )
                worker.start()
        if time.time() - self._counted > 1:
            self._counted = time.time()
            self._pids = {worker: frozenset(worker.tree_pids()) for worker in self._site.workers}
        for client in self._site.clients:
            if not client.running:
                pid = client.pid
                client.close()
                client.start()
                for fault in self.faults:
                    if pid in fault.pids and CLIENT in fault.groups:
                        fault.until = min(fault.until, time.time())

    def _strike(self, name: str) -> None:
        fault = Fault(name, _KINDS[name][1], time.time())
        target, begin = self._attack(name, fault)
        if target is None or target in self._busy:
            return
        print(f"{fault.at:.1f} {name}", flush=True)
        self.faults.append(fault)
        end = begin()
        if end is None:
            fault.until = max(fault.at, time.time()) if fault.until == float("inf") else fault.until
            return
        self._busy.add(target)

        def recovered() -> None:
            end()
            fault.until = time.time()
            self._busy.discard(target)

        heapq.heappush(self._later, _Later(time.time() + self._chance.uniform(*_DOWN), next(self._numbers), recovered))

    def _attack(self, name: str, fault: Fault) -> tuple[object, Callable[[], Callable[[], None] | None]]:
        """Choose whom a fault strikes; returns that, and what to do, which returns how to undo it."""
        site = self._site
        if name.startswith("PostgreSQL"):
            mode = "immediate" if "immediate" in name else "fast"
            return site.postgres, lambda: self._stop_database(mode)
        if name.startswith("Redis"):
            return site.redis, lambda: self._stop_redis(keeps="without" not in name)
        if name.startswith("result"):
            return site.results, lambda: self._stop_results(kills="killed" in name)
        if name.startswith("connections"):
            return site.proxy, lambda: self._cut(name, fault)
        if name.startswith("rows"):
            return "rows", self._lock_rows
        if name.startswith("client"):
            return self._kill_client(name, fault)
        if name.startswith("receiver"):
            return site.receiver, self._refuse
        return self._attack_worker(name, fault)

    def _attack_worker(self, name: str, fault: Fault) -> tuple[object, Callable[[], Callable[[], None] | None]]:
        worker = self._chance.choice(self._site.workers)
        position = self._chance.random()
        process = worker.process
        if process is None or worker in self._busy or not process.running:
            return None, lambda: None
        children = worker.child_pids()
        tree = frozenset(worker.tree_pids())
        if name.startswith(("child", "soft")):
            if not children:
                return None, lambda: None
            child = children[int(position * len(children))]
            fault.pids = frozenset({child})
            if name.startswith("soft"):
                return worker, lambda: _send(child, signal.SIGUSR1)
            if name == "child killed":
                return worker, lambda: _send(child, signal.SIGKILL)

            def stop() -> Callable[[], None]:
                _send(child, signal.SIGSTOP)
                return lambda: _send(child, signal.SIGCONT)

            return worker, stop
        fault.pids = tree
        if name == "worker stopped for a while":

            def freeze() -> Callable[[], None]:
                process.freeze()
                return process.thaw

            return worker, freeze

        def kill() -> Callable[[], None]:
            if name == "main process killed":
                worker.kill()
            fault.pids |= frozenset(worker.tree_pids())
            worker.kill_tree()
            return worker.start

        return worker, kill

    def _kill_client(self, name: str, fault: Fault) -> tuple[object, Callable[[], None]]:
        client: LocalProcess = self._chance.choice(self._site.clients)
        if not client.running:
            return None, lambda: None
        fault.pids = frozenset({client.pid})
        # Until it is seen that it runs no more.
        fault.until = time.time() + 30 if "inside" in name else fault.at + 1
        return client, lambda: _send(client.pid, signal.SIGUSR1 if "inside" in name else signal.SIGKILL)

    def _stop_database(self, mode: str) -> Callable[[], None]:
        self._site.postgres.stop(mode="immediate" if mode == "immediate" else "fast")
        return self._site.postgres.start

    def _stop_redis(self, *, keeps: bool) -> Callable[[], None]:
        redis = self._site.redis
        redis.stop() if self._chance.random() < 0.5 else redis.kill()
        if not keeps:
            redis.wipe()
        return redis.start

    def _stop_results(self, *, kills: bool) -> Callable[[], None]:
        # Its data stay: without the count of its header no body of a chord would ever be sent.
        results = self._site.results
        results.kill() if kills else results.stop()
        return results.start

    def _cut(self, name: str, fault: Fault) -> None:
        fault.until = time.time() + _CUT_SECONDS
        self._site.proxy.cut("request" if "statement" in name else "answer" if "answer" in name else "now")

    def _lock_rows(self) -> Callable[[], None]:
        engine = create_engine(self._site.taskstate.database.engine.url, poolclass=NullPool)
        with suppress(Exception):
            connection = engine.connect()
            connection.execute(
                text("SELECT task_id FROM taskstate_job WHERE end_status IS NULL ORDER BY random() LIMIT 5 FOR UPDATE")
            )
            return lambda: _close(connection)
        return lambda: None

    def _refuse(self) -> Callable[[], None]:
        receiver = self._site.receiver
        receiver.refuses = True

        def accept() -> None:
            receiver.refuses = False

        return accept


def _close(connection: object) -> None:
    # The database may have gone away meanwhile.
    with suppress(Exception):
        connection.close()  # type: ignore[attr-defined]  # a connection of SQLAlchemy


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
