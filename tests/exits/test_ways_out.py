"""The table of ways out of Celery's tracer (ADR 0014), each forced on a real worker of each pool."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from celery import signature

from qhana_taskstate import ProcessingTask
from tests.canvas.deployment import Deployment
from tests.exits.conftest import DeployExits
from tests.waiting import wait_until

#: What strikes in a hook or in the result backend, and how a failure of it is called.
STRIKES = {
    "break": "HookError",
    "soft limit": "SoftTimeLimitExceeded",
    "signal of a soft limit": "SoftTimeLimitExceeded",
}


@dataclass(frozen=True)
class Way:
    """One row: what is told to the task, and how its task must end.

    Attributes:
        body: What the body does.
        hooks: What each hook, or the result backend, does.
        status: How the task must end.
        log: Pieces of the log, in this order.
        task: Which task of `tests.apps.exits`.
        pools: Where; all by default.
        states: States of its executions; None for any.
    """

    body: str
    status: str
    log: tuple[str, ...] = ()
    hooks: dict[str, str] = field(default_factory=dict)
    task: str = "early"
    pools: tuple[str, ...] = ("prefork", "threads", "solo", "gevent")
    states: tuple[str, ...] | None = None

    def __str__(self) -> str:
        told = ", ".join(f"{hook}: {what}" for hook, what in self.hooks.items())
        return f"{self.task} {self.body}{f' ({told})' if told else ''}: {self.status}"


#: Pools whose worker outlives what Celery lets out of its tracer; one of the solo pool ends by it.
OUTLIVING = ("prefork", "threads", "gevent")


def cause_and(hidden_by: str) -> tuple[str, ...]:
    """Return what a log says of a body's exception that another one hid."""
    return ("ValueError: the cause; and then, while Celery dealt with that:", hidden_by)


def _ways() -> Iterator[Way]:
    for task in ("early", "late", "plain"):
        yield Way("return", "SUCCESS", task=task, states=("SUCCESS",))
        yield Way("raise", "ERROR", ("ValueError: the cause",), task=task, states=("FAILURE",))
        yield Way("retry", "ERROR", ("ConnectionError: not yet",), task=task, states=("RETRY", "FAILURE"))
        yield Way("ignore", "SUCCESS", task=task, states=("IGNORED",))
        yield Way("ignore as failed", "ERROR", ("ValueError: the cause",), task=task, states=("FAILURE",))
        yield Way("reject", "ERROR", ("Reject: unwanted",), task=task)
        yield Way("soft limit", "ERROR", ("SoftTimeLimitExceeded",), task=task, states=("FAILURE",))
        yield Way("cancel", "ERROR", task=task, pools=("prefork", "threads", "gevent"))
    yield Way("requeue", "ERROR", ("cannot be requeued",), states=("LOST",))
    for way in ("interrupt", "exit"):
        yield Way(way, "ERROR", pools=("prefork", "threads"))
    yield Way("kill", "ERROR", ("WorkerLostError",), pools=("prefork",))
    yield Way("sleep", "ERROR", ("SoftTimeLimitExceeded",), task="softly", pools=("prefork",))
    yield Way("sleep", "ERROR", ("TimeLimitExceeded",), task="strictly", pools=("prefork", "gevent"))
    for strike, name in STRIKES.items():
        yield Way("return", "ERROR", (name,), {"before_start": strike})
        yield Way("raise", "ERROR", cause_and(name), {"on_failure": strike}, pools=OUTLIVING, states=("FAILURE",))
        yield Way("raise", "ERROR", ("ValueError: the cause",), {"after_return": strike}, states=("FAILURE",))
        yield Way("raise", "ERROR", cause_and(name), {"backend": strike}, pools=OUTLIVING, states=("FAILURE",))
        yield Way("return", "ERROR", (name,), {"backend": strike}, pools=OUTLIVING)
        # The next attempt was published before: it decides.
        yield Way("retry", "ERROR", ("ConnectionError: not yet",), {"on_retry": strike}, states=("RETRY", "FAILURE"))
    yield Way(
        "raise", "ERROR", cause_and("BackendGoneError"), {"backend": "gone"}, pools=OUTLIVING, states=("FAILURE",)
    )
    yield Way("return", "ERROR", ("BackendGoneError",), {"backend": "gone"}, pools=OUTLIVING)
    yield Way("raise", "ERROR", cause_and("HookError"), {"on_failure": "break"}, task="late", pools=OUTLIVING)
    yield Way("raise", "ERROR", cause_and("HookError"), {"on_failure": "break"}, task="plain", pools=OUTLIVING)
    for hook in ("before_start", "on_failure", "after_return", "backend"):
        yield Way("raise", "ERROR", (), {hook: "cancel"}, pools=("prefork", "threads", "gevent"))
        yield Way("raise", "ERROR", (), {hook: "exit"}, pools=("prefork", "threads"))
        yield Way("raise", "ERROR", (), {hook: "kill"}, pools=("prefork",))
        yield Way("raise", "ERROR", (), {hook: "reject"}, pools=OUTLIVING)


WAYS = tuple(_ways())


@pytest.fixture(scope="module", params=["prefork", "threads", "solo", "gevent"])
def pool(request: pytest.FixtureRequest) -> str:
    """The pool of the worker."""
    return str(request.param)


@pytest.fixture(scope="module")
def deployment(pool: str, deploy_exits: DeployExits) -> Iterator[Deployment]:
    """A worker of the pool on SQLite."""
    with deploy_exits("sqlite", pool=pool) as found:
        yield found


def test_every_way_out_ends_its_task(deployment: Deployment, pool: str) -> None:
    """All rows at once: each worker serves the whole table, since to start one takes longer than a row."""
    ways = [way for way in WAYS if pool in way.pools]
    started = [
        deployment.taskstate.start(
            signature(f"tests.apps.exits.{way.task}", kwargs={"body": way.body, **way.hooks}, app=deployment.app)
        ).id
        for way in ways
    ]

    def ended() -> bool:
        return all(_task(task_id).finished_at is not None for task_id in started)

    with contextlib.suppress(AssertionError):
        wait_until("all have ended", ended, timeout=40)
    wrong = [
        f"{way}: {fault}"
        for way, task_id in zip(ways, started, strict=True)
        for fault in _faults(deployment, way, task_id)
    ]
    assert not wrong, "\n".join(wrong)


def _task(task_id: int) -> ProcessingTask:
    task = ProcessingTask.get_by_id(task_id)
    assert task is not None
    return task


def _faults(deployment: Deployment, way: Way, task_id: int) -> list[str]:
    task = _task(task_id)
    if task.status != way.status:
        seen = [(row.name, row.state, row.deliveries) for row in deployment.executions(task_id)]
        return [f"is {task.status}, {task.task_log!r}, {seen}"]
    found = []
    place = -1
    for piece in way.log:
        place = task.task_log.find(piece, place + 1)
        if place < 0:
            found.append(f"{piece!r} is missing or misplaced in {task.task_log!r}")
            break
    rows = deployment.executions(task_id)
    states = tuple(row.state for row in sorted(rows, key=lambda row: row.retries))
    if way.states is not None and states != way.states:
        found.append(f"executions are {states}")
    return found
