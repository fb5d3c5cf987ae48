"""A representative part of the table on the other pools, and on RabbitMQ."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord, group

from qhana_taskstate.testing.rabbitmq_server import RabbitMQServer
from tests.apps.canvases import become, late, member, plain, send
from tests.canvas.conftest import Deploy
from tests.canvas.deployment import Deployment


@dataclass(frozen=True)
class Case:
    """A canvas and how it must end."""

    name: str
    status: str
    work: Callable[[Path], Any]
    log: str = ""
    executions: int | None = None


def _ok() -> Any:
    return member.si()


def _bad() -> Any:
    return member.si("raise")


CASES = (
    Case("chain", "SUCCESS", lambda folder: chain(_ok(), plain.si(), _ok()), "", 3),
    Case("chord in a chain", "SUCCESS", lambda folder: chain(_ok(), chord([_ok(), _ok()], _ok()), _ok()), "", 5),
    Case("chord whose header raises", "ERROR", lambda folder: chord([_ok(), _bad()], _ok()), "ValueError: on purpose"),
    Case("replaced by a chord", "SUCCESS", lambda folder: become.si(chord([_ok(), _ok()], _ok())), "", 4),
    Case("delay, two levels deep", "SUCCESS", lambda folder: send.si([send.si([_ok(), _ok()])]), "", 4),
    Case("retries once", "SUCCESS", lambda folder: group(member.si("retry once"), _ok()), "", 3),
    Case("runs out of retries", "ERROR", lambda folder: member.si("retry always"), "ConnectionError: attempt 2", 3),
    Case("raises Reject", "ERROR", lambda folder: chain(late.si("reject"), _ok()), "unwanted"),
    Case("is put back once, late ack", "SUCCESS", lambda folder: chain(late.si(*_put_back(folder)), _ok())),
)


def _put_back(folder: Path) -> tuple[str, str]:
    return "reject and requeue once", str(folder / "first")


@pytest.fixture(scope="module", params=["threads", "solo", "gevent", "prefork on rabbitmq"])
def deployment(request: pytest.FixtureRequest, deploy: Deploy) -> Iterator[Deployment]:
    """A worker of each pool on PostgreSQL and Redis, and one of prefork on RabbitMQ."""
    pool, _, broker = str(request.param).partition(" on ")
    broker_url = None
    if broker:
        server: RabbitMQServer = request.getfixturevalue("rabbitmq_server")
        broker_url = server.create_vhost()
    with deploy("postgresql", pool=pool, broker_url=broker_url, concurrency=4 if pool != "prefork" else 2) as found:
        found.app.set_current()
        yield found


@pytest.fixture
def mortal(request: pytest.FixtureRequest, deployment: Deployment, deploy: Deploy) -> Iterator[Deployment]:
    """The same, for tests after which a worker of the solo pool has exited."""
    pool = request.node.callspec.params["deployment"]
    if pool != "solo":
        yield deployment
        return
    with deploy("postgresql", pool=pool) as found:
        found.app.set_current()
        yield found
    deployment.app.set_current()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}: {case.status}")
def test_canvas_ends_as_on_prefork(deployment: Deployment, case: Case, tmp_path: Path) -> None:
    deployment.app.set_current()
    task = deployment.taskstate.start(case.work(tmp_path))

    task = deployment.taskstate.wait(task, timeout=15)

    assert task.status == case.status
    assert case.log in task.task_log
    deployment.check_end(task)
    if case.executions is not None:
        assert len(deployment.executions(task.id)) == case.executions


@pytest.mark.parametrize("what", ["cancel", "interrupt"])
def test_exception_that_celery_lets_pass_ends_as_error(mortal: Deployment, what: str) -> None:
    task = mortal.taskstate.start(chain(member.si(what), _ok()))

    task = mortal.taskstate.wait(task, timeout=8)

    assert task.status == "ERROR"
    assert {"cancel": "CancelledError", "interrupt": "KeyboardInterrupt"}[what] in task.task_log
    mortal.check_end(task)


def test_sys_exit_ends_as_error(mortal: Deployment) -> None:
    task = mortal.taskstate.start(member.si("exit"))

    task = mortal.taskstate.wait(task, timeout=8)

    assert task.status == "ERROR"
    assert {"SystemExit", "WorkerLostError"} & set(task.task_log.replace(":", " ").split())
