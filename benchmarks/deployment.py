"""One contender at work: its worker, the process that sends for it, and what its processes use up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

import psutil
import redis

from qhana_taskstate.testing.container import LocalWorker
from qhana_taskstate.testing.redis_server import RedisServer
from qhana_taskstate.testing.sql_server import SqlServer
from qhana_taskstate.testing.waiting import wait_until

ROOT = Path(__file__).resolve().parent.parent

#: Seconds in which a queue must be emptied.
_DRAIN_SECONDS = 300.0
#: How often in a row a queue must be found empty: the second message of a chain comes after the first was received.
_LOOKS = 3
_LOOK_SECONDS = 0.01


@dataclass(frozen=True)
class Drained:
    """How a worker emptied its queue.

    Attributes:
        messages: How many messages were sent.
        rate: Of these, a second.
        worker_cpu: Milliseconds of the worker's processes, per message.
        database_cpu: Milliseconds of the database server's processes, per message.
        send_seconds: What sending one took the client.
    """

    messages: int
    rate: float
    worker_cpu: float
    database_cpu: float
    send_seconds: float


class Deployment:
    """A worker with two pool processes for one contender, and the process that sends for it.

    Args:
        contender: Name of a module in `benchmarks.contenders`.
        broker_url: Redis, for messages. The results of contenders that need some are there too.
        database_url: Where the contender keeps its state.
        database_pid: The database server, None for one that is in process.
        folder: For the worker's log.
    """

    def __init__(
        self, contender: str, *, broker_url: str, database_url: str, database_pid: int | None, folder: Path
    ) -> None:
        self.contender = contender
        self._broker = redis.Redis.from_url(broker_url)
        self._database_pid = database_pid
        environment = {
            "CELERY_BROKER_URL": broker_url,
            "CELERY_RESULT_URL": broker_url,
            "TASKSTATE_DATABASE_URL": database_url,
        }
        self._queue = f"benchmarks.{contender}"
        self._sender = _Sender(contender, environment)
        self.worker = LocalWorker(
            [
                *LocalWorker.command(application=f"benchmarks.contenders.{contender}:app", concurrency=2),
                "--without-gossip",
                "--without-mingle",
            ],
            folder=folder,
            env=environment,
            cwd=ROOT,
        )

    def __enter__(self) -> Self:
        self.worker.start()
        self.worker.ready()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sender.close()
        self.worker.remove()
        self._broker.close()

    @property
    def kinds(self) -> list[str]:
        """The kinds of tasks that the contender has."""
        return self._sender.kinds

    def send(self, kind: str, count: int) -> float:
        """Send tasks that nobody runs, and forget them.

        Returns:
            Seconds that one took the client.
        """
        self._consume(False)
        answer = self._sender.ask(kind, count)
        self._broker.delete(self._queue, "benchmarks.deliveries")
        return float(answer["seconds"]) / int(answer["messages"])

    def drain(self, kind: str, count: int) -> Drained:
        """Fill the queue while nobody consumes it, then measure how the worker empties it."""
        self._consume(False)
        answer = self._sender.ask(kind, count)
        messages = int(answer["messages"])
        worker, database = _cpu(self.worker.pid), _cpu(self._database_pid)
        began = time.perf_counter()
        self._consume(True)
        empty = 0

        def is_empty() -> bool:
            nonlocal empty
            busy = self._broker.llen(self._queue) or self._broker.hlen("unacked")
            empty = 0 if busy else empty + 1
            return empty >= _LOOKS

        wait_until(f"{self._queue} is empty", is_empty, timeout=_DRAIN_SECONDS, interval=_LOOK_SECONDS)
        seconds = time.perf_counter() - began - (_LOOKS - 1) * _LOOK_SECONDS
        used, database_used = _cpu(self.worker.pid) - worker, _cpu(self._database_pid) - database
        self._broker.delete("benchmarks.deliveries")
        return Drained(
            messages=messages,
            rate=messages / seconds,
            worker_cpu=1000 * used / messages,
            database_cpu=1000 * database_used / messages,
            send_seconds=float(answer["seconds"]) / messages,
        )

    def _consume(self, on: bool) -> None:
        """Let the worker serve its queue, or not."""
        word = "add-consumer" if on else "cancel-consumer"
        self._sender.control(word, self._queue)


def deploy(stack: ExitStack, contenders: set[str], server: SqlServer | None, folder: Path) -> dict[str, Deployment]:
    """Start contenders that share one Redis, each with a database of its own; they end with the stack.

    Args:
        stack: Ends them.
        contenders: Names of modules in `benchmarks.contenders`.
        server: The database server, None for SQLite.
        folder: For logs and SQLite's files.
    """
    broker = stack.enter_context(RedisServer())
    deployments = {}
    for number, contender in enumerate(sorted(contenders)):
        url = server.create_database() if server else f"sqlite:///{folder}/{contender}.db"
        deployments[contender] = stack.enter_context(
            Deployment(
                contender,
                broker_url=broker.database_url(number),
                database_url=url,
                database_pid=server.pid if server else None,
                folder=folder,
            )
        )
    return deployments


class _Sender:
    """The process that sends for one contender."""

    def __init__(self, contender: str, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "benchmarks.contenders", contender],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._input, self._output = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)
        self.kinds: list[str] = self._answer()["kinds"]

    def ask(self, kind: str, count: int) -> dict[str, Any]:
        return self._request({"kind": kind, "count": count})

    def control(self, word: str, queue: str) -> None:
        self._request({"control": word, "queue": queue})

    def close(self) -> None:
        self._input.close()
        self._process.wait(timeout=30)

    def _request(self, request: dict[str, Any]) -> dict[str, Any]:
        self._input.write(json.dumps(request) + "\n")
        self._input.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._output.readline()
        if not line:
            raise SystemExit(f"the sender of a contender ended with {self._process.wait(timeout=30)}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _cpu(pid: int | None) -> float:
    """CPU seconds that a process, its children and the children that it had used up."""
    if pid is None:
        return 0.0
    total = 0.0
    top = psutil.Process(pid)
    for process in [top, *top.children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total
