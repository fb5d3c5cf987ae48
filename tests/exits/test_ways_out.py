"""The table of ways out of Celery's tracer (ADR 0014), each forced on a real worker of each pool."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest
from celery import signature

from qhana_taskstate import ProcessingTask
from qhana_taskstate.testing.server import free_port
from qhana_taskstate.tracking import older_celery
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
        terminated: Whether it is revoked, with `terminate`, once it runs.
    """

    body: str
    status: str
    log: tuple[str, ...] = ()
    hooks: dict[str, str] = field(default_factory=dict)
    task: str = "early"
    pools: tuple[str, ...] = ("prefork", "threads", "solo", "gevent")
    states: tuple[str, ...] | None = None
    terminated: bool = False

    def __str__(self) -> str:
        told = ", ".join(f"{hook}: {what}" for hook, what in self.hooks.items())
        return f"{self.task} {self.body}{f' ({told})' if told else ''}: {self.status}"


#: Pools whose worker outlives what Celery lets out of its tracer; one of the solo pool ends by it.
OUTLIVING = ("prefork", "threads", "gevent")


def cause_and(hidden_by: str) -> tuple[str, ...]:
    """Return what a log says of a body's exception that another one hid."""
    return ("ValueError: the cause; and then, while Celery dealt with that:", hidden_by)


def _where_hooks_are_logged(error: str) -> tuple[str, tuple[str, ...]]:
    """Return status and log of a task whose `on_success` raises."""
    return ("ERROR", (error,)) if older_celery.IN_USE else ("SUCCESS", ())


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
    yield Way("raise with a broken connection", "ERROR", ("ValueError: the cause",), states=("FAILURE",))
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
        # A limit is one of the task's; another fault of the backend costs the result that it holds, and no more.
        ended = "SUCCESS" if strike == "break" else "ERROR"
        yield Way("return", ended, () if strike == "break" else (name,), {"backend": strike}, pools=OUTLIVING)
        # Celery 5.7 logs it; before, the failure replaces the success that was stored.
        yield Way("return", *_where_hooks_are_logged(name), {"on_success": strike}, pools=OUTLIVING)
        # The next attempt was published before: it decides.
        yield Way("retry", "ERROR", ("ConnectionError: not yet",), {"on_retry": strike}, states=("RETRY", "FAILURE"))
    yield Way(
        "raise", "ERROR", cause_and("BackendGoneError"), {"backend": "gone"}, pools=OUTLIVING, states=("FAILURE",)
    )
    for task in ("early", "late", "plain"):
        yield Way("return", "SUCCESS", (), {"backend": "gone"}, task=task, pools=OUTLIVING, states=("SUCCESS",))
    yield Way("sleep", "ERROR", ("terminated",), pools=("prefork", "gevent"), states=("REVOKED",), terminated=True)
    yield Way("raise", "ERROR", cause_and("HookError"), {"on_failure": "break"}, task="late", pools=OUTLIVING)
    yield Way("raise", "ERROR", cause_and("HookError"), {"on_failure": "break"}, task="plain", pools=OUTLIVING)
    for hook in ("before_start", "on_failure", "after_return", "backend"):
        yield Way("raise", "ERROR", (), {hook: "cancel"}, pools=("prefork", "threads", "gevent"))
        yield Way("raise", "ERROR", (), {hook: "exit"}, pools=("prefork", "threads"))
        yield Way("raise", "ERROR", (), {hook: "kill"}, pools=("prefork",))
        yield Way("raise", "ERROR", (), {hook: "reject"}, pools=OUTLIVING)


WAYS = tuple(_ways())

#: Ways that may end the worker of a solo pool, which has no parent.
FATAL = (
    Way("exit", "ERROR", ("SystemExit",), states=("FAILURE",)),
    Way("cancel", "ERROR", ("CancelledError",), states=("FAILURE",)),
    Way("raise", "ERROR", cause_and("HookError"), {"on_failure": "break"}, states=("FAILURE",)),
    Way("return", "SUCCESS", (), {"backend": "gone"}, states=("SUCCESS",)),
)


#: Ways of a worker whose result backend answers nobody.
BARE = (
    Way("return", "SUCCESS", states=("SUCCESS",)),
    Way("return", "SUCCESS", task="late", states=("SUCCESS",)),
    Way("return", "SUCCESS", task="plain", states=("SUCCESS",)),
    Way("raise", "ERROR", ("ValueError: the cause",), states=("FAILURE",)),
    Way("raise", "ERROR", ("ValueError: the cause",), task="plain", states=("FAILURE",)),
    Way("retry", "ERROR", ("ConnectionError: not yet",), states=("RETRY", "FAILURE")),
    Way("ignore", "SUCCESS", states=("IGNORED",)),
    Way("reject", "ERROR", ("Reject: unwanted",)),
    Way("soft limit", "ERROR", ("SoftTimeLimitExceeded",), states=("FAILURE",)),
    Way("exit", "ERROR", pools=("prefork",)),
    Way("kill", "ERROR", ("WorkerLostError",), pools=("prefork",)),
    Way("sleep", "ERROR", ("TimeLimitExceeded",), task="strictly", pools=("prefork",), states=("FAILURE",)),
)


@pytest.mark.parametrize(
    ("kind", "pool"),
    [
        ("sqlite", "prefork"),
        ("postgresql", "prefork"),
        ("sqlite", "threads"),
        ("postgresql", "threads"),
        ("postgresql", "solo"),
        ("sqlite", "gevent"),
    ],
)
def test_every_way_out_ends_its_task(deploy_exits: DeployExits, kind: str, pool: str) -> None:
    """All rows at once: each worker serves the whole table, since to start one takes longer than a row."""
    with deploy_exits(kind, pool=pool, concurrency=4) as deployment:
        _go(deployment, [way for way in WAYS if pool in way.pools])


def test_way_out_that_may_end_a_solo_worker_ends_its_task(deploy_exits: DeployExits) -> None:
    with deploy_exits("sqlite", pool="solo") as deployment:
        for way in FATAL:
            _go(deployment, [way])
            with contextlib.suppress(AssertionError):
                # Which of them Celery's consumer survives depends on its version.
                wait_until("its worker has ended", lambda: deployment.worker.status == "exited", timeout=3)
                deployment.worker.start()
                deployment.worker.ready()


@pytest.mark.parametrize(("kind", "pool"), [("postgresql", "prefork"), ("sqlite", "threads")])
def test_tasks_end_without_their_result_backend(deploy_exits: DeployExits, kind: str, pool: str) -> None:
    gone = f"redis://127.0.0.1:{free_port()}/0"
    with deploy_exits(kind, pool=pool, environment={"CELERY_RESULT_BACKEND": gone}) as deployment:
        _go(deployment, [way for way in BARE if pool in way.pools])


def _go(deployment: Deployment, ways: Sequence[Way]) -> None:
    started = [
        deployment.taskstate.start(
            signature(f"tests.apps.exits.{way.task}", kwargs={"body": way.body, **way.hooks}, app=deployment.app)
        ).id
        for way in ways
    ]

    to_terminate = {task_id for way, task_id in zip(ways, started, strict=True) if way.terminated}

    def ended() -> bool:
        for task_id in list(to_terminate):
            for row in deployment.executions(task_id):
                if row.state == "RUNNING":
                    deployment.app.control.revoke(row.celery_id, terminate=True)
                    to_terminate.discard(task_id)
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
