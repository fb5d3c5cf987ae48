"""Prove that subscribers miss nothing while receivers fail, deliverers are killed and the broker forgets.

`python -m benchmarks.webhooks` runs tasks that report progress all the time, each with three subscribers. The receiver
answers 500 at random, the worker that delivers is killed with SIGKILL again and again, and Redis is restarted empty
once. It prints a table and exits with 1 if a subscriber was not told after the last change of its task, if calls of a
subscription and event came out of order, or if there were too many of them.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import random
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from celery import Celery
from sqlalchemy import func, select

from qhana_taskstate import TaskState
from qhana_taskstate.database.tables.executions import execution_table
from qhana_taskstate.testing.container import LocalWorker
from qhana_taskstate.testing.postgres_server import PostgresServer
from qhana_taskstate.testing.receiver import Reply, Told, WebhookReceiver
from qhana_taskstate.testing.redis_server import RedisServer
from qhana_taskstate.testing.waiting import wait_until

ROOT = Path(__file__).resolve().parent.parent
APP = "benchmarks.webhook_app:app"
SUBSCRIBERS = 3

#: A subscription may get this part of as many calls as there were changes.
CALLS_PER_CHANGE = 0.1


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is run.

    Attributes:
        tasks: How many tasks at once.
        seconds: How long each reports.
        per_second: How many reports a second each makes.
        failing: Share of the calls that the receiver answers with 500.
        kills: How often the delivering worker is killed.
        seed: Of the receiver's choices.
    """

    tasks: int = 200
    seconds: float = 30.0
    per_second: float = 10.0
    failing: float = 0.3
    kills: int = 5
    seed: int = 1

    @property
    def changes(self) -> int:
        """How often each task changes, its end not counted."""
        return round(self.seconds * self.per_second)


@dataclass
class Result:
    """What came of it.

    Attributes:
        tasks: Tasks that were run.
        succeeded: Tasks that ended as SUCCESS.
        calls: Calls that the receiver got.
        meanwhile: Calls that it got before the last task ended.
        refused: Calls that it answered with 500.
        changes: Reports of each task.
        most_calls: Calls of the subscription that got the most.
        untold: Subscriptions and events whose last accepted call did not tell of the end.
        out_of_order: Calls that came after a later one of their subscription and event.
        unsigned: Calls without a fitting signature.
        seconds: From the last end of a task until the last subscriber was told of it.
    """

    tasks: int = 0
    succeeded: int = 0
    calls: int = 0
    meanwhile: int = 0
    refused: int = 0
    changes: int = 0
    most_calls: int = 0
    untold: list[str] = field(default_factory=list)
    out_of_order: list[str] = field(default_factory=list)
    unsigned: int = 0
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Whether every promise was kept."""
        return (
            self.succeeded == self.tasks
            and not self.untold
            and not self.out_of_order
            and not self.unsigned
            and self.most_calls <= CALLS_PER_CHANGE * self.changes
        )


def run(load: Load, *, patience: float = 120.0) -> Result:
    """Run it on servers of its own.

    Args:
        load: What to run.
        patience: Seconds after the last end within which every subscriber must have been told of it.
    """
    chance = random.Random(load.seed)  # noqa: S311 - a simulation
    accepted: set[int] = set()

    def answer(told: Told) -> Reply:
        if chance.random() < load.failing:
            return Reply(500)
        accepted.add(told.number)
        return Reply(204)

    secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    with (
        tempfile.TemporaryDirectory() as folder,
        RedisServer() as redis,
        PostgresServer() as postgres,
        WebhookReceiver(answer, secrets=[secret]) as receiver,
    ):
        environment = {
            "CELERY_BROKER_URL": redis.url,
            "TASKSTATE_DATABASE_URL": postgres.create_database(),
            "TASKSTATE_WEBHOOK_SECRETS": secret,
            "TASKSTATE_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
            "TASKSTATE_WEBHOOK_QUEUE": "webhooks",
            "TASKSTATE_WEBHOOK_RETRY_SCHEDULE": json.dumps([0.5, 1, 1, 2, 2, 4, 4, 8, 8, 8, 8, 8, 8]),
            "TASKSTATE_WEBHOOK_TIMEOUT_SECONDS": "5",
        }
        os.environ.update(environment)
        from benchmarks import webhook_app as module  # the app reads the environment when it is imported

        module.taskstate.upgrade()
        with _worker(Path(folder), environment, "reports", "threads", load.tasks):
            return _run(
                load, module.app, module.taskstate, redis, receiver, accepted, Path(folder), environment, patience
            )


@contextmanager
def _worker(
    folder: Path, environment: dict[str, str], queue: str, pool: str, concurrency: int
) -> Iterator[LocalWorker]:
    command = LocalWorker.command(application=APP, pool=pool, concurrency=concurrency, queues=queue)
    worker = LocalWorker(command, folder=Path(tempfile.mkdtemp(dir=folder)), env=dict(environment), cwd=ROOT)
    worker.start()
    try:
        worker.ready()
        yield worker
    finally:
        worker.remove()


def _run(
    load: Load,
    app: Celery,
    state: TaskState,
    redis: RedisServer,
    receiver: WebhookReceiver,
    accepted: set[int],
    folder: Path,
    environment: dict[str, str],
    patience: float,
) -> Result:
    ids = [_start(state, receiver, load) for _ in range(load.tasks)]
    wait_until("every task has begun", lambda: _begun(state) >= load.tasks, timeout=60, interval=0.2)
    began = time.monotonic()
    steps = load.kills + 2
    for number in range(load.kills + 1):
        with _worker(folder, environment, "webhooks", "prefork", 2) as deliverer:
            if number == load.kills:
                # The last one is left alone.
                ended = _wait_for_ends(state, ids, load.seconds + 60)
                return _judge(load, state, receiver, accepted, ids, ended, patience)
            time.sleep(max(0.0, began + load.seconds * (number + 1) / steps - time.monotonic()))
            deliverer.kill_tree()
        if number == load.kills // 2:
            redis.restart(keep_data=False)
    raise AssertionError("the last worker was not reached")


def _start(state: TaskState, receiver: WebhookReceiver, load: Load) -> int:
    task = state.start(state.app.tasks["reports"].s(load.seconds, load.per_second))
    for number in range(SUBSCRIBERS):
        state.subscribe(task, receiver.href(f"/{task.id}/{number}"), f"https://plugin.example/tasks/{task.id}/")
    return task.id


def _begun(state: TaskState) -> int:
    with state.database.reading() as connection:
        started = execution_table.c.started_at.is_not(None)
        return int(connection.execute(select(func.count()).select_from(execution_table).where(started)).scalar_one())


def _wait_for_ends(state: TaskState, ids: Sequence[int], timeout: float) -> float:
    deadline = time.monotonic() + timeout
    for task_id in ids:
        state.wait(task_id, timeout=max(1.0, deadline - time.monotonic()))
    return time.monotonic()


def _judge(
    load: Load,
    state: TaskState,
    receiver: WebhookReceiver,
    accepted: set[int],
    ids: Sequence[int],
    ended: float,
    patience: float,
) -> Result:
    result = Result(tasks=len(ids), changes=load.changes)
    result.succeeded = sum(state.wait(task_id, timeout=1).is_ok for task_id in ids)
    wanted = {
        (f"/{task_id}/{number}", event)
        for task_id in ids
        for number in range(SUBSCRIBERS)
        for event in ("status", "details")
    }

    def untold() -> set[tuple[str, str]]:
        last: dict[tuple[str, str], str] = {}
        for call in list(receiver.calls):
            if call.number in accepted:
                last[call.path, call.event] = call.status
        return {key for key in wanted if last.get(key) != "SUCCESS"}

    deadline = time.monotonic() + patience
    while untold() and time.monotonic() < deadline:
        time.sleep(0.2)
    result.seconds = max(0.0, time.monotonic() - ended)
    result.untold = sorted(f"{path} {event}" for path, event in untold())
    calls = list(receiver.calls)
    result.meanwhile = sum(call.came_at < ended for call in calls)
    result.calls, result.refused, result.unsigned = len(calls), len(calls) - len(accepted), receiver.refused
    result.most_calls = max(Counter(call.path for call in calls).values(), default=0)
    newest: dict[tuple[str, str], int] = {}
    for call in calls:
        key = call.path, call.event
        if call.sequence < newest.get(key, 0):
            result.out_of_order.append(f"{call.path} {call.event} {call.sequence} after {newest[key]}")
        newest[key] = max(call.sequence, newest.get(key, 0))
    return result


def _tell(result: Result) -> None:
    rows: dict[str, Any] = asdict(result)
    for name, value in rows.items():
        shown = (
            f"{len(value)} {value[:5]}" if isinstance(value, list) else f"{value:.1f}" if name == "seconds" else value
        )
        print(f"  {name.replace('_', ' '):<14} {shown}", flush=True)


def main() -> int:
    """Run it; see `--help`."""
    defaults = Load()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.webhooks", description=__doc__)
    parser.add_argument("--tasks", type=int, default=defaults.tasks, help="tasks at once (default 200)")
    parser.add_argument("--seconds", type=float, default=defaults.seconds, help="how long each reports (default 30)")
    parser.add_argument("--kills", type=int, default=defaults.kills, help="kills of the delivering worker (default 5)")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="of the receiver's choices")
    arguments = parser.parse_args()
    load = Load(tasks=arguments.tasks, seconds=arguments.seconds, kills=arguments.kills, seed=arguments.seed)
    print(f"seed {load.seed}: {load}", flush=True)
    result = run(load)
    _tell(result)
    print("every promise was kept" if result.good else "a promise was broken")
    return 0 if result.good else 1


if __name__ == "__main__":
    sys.exit(main())
