"""Each setting changes what happens, wherever it applies."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from celery import chain, group
from sqlalchemy import Connection, select

from qhana_taskstate import TaskState
from qhana_taskstate.context.current import enter
from qhana_taskstate.context.execution import Execution
from qhana_taskstate.database.tables.executions import execution_table
from qhana_taskstate.facts import ExecutionKey
from qhana_taskstate.states import ExecutionState
from qhana_taskstate.store.executions import begin as executions_begin
from qhana_taskstate.store.task import jobs
from tests.apps.jobs import add, say
from tests.contract.conftest import MakeState

pytestmark = pytest.mark.versions


def _start_one(state: TaskState) -> None:
    state.start(say.s("x"))


def _start_a_chain(state: TaskState) -> None:
    state.start(chain(say.s("x"), say.si("y")))


def _start_a_group(state: TaskState) -> None:
    state.start(group(add.s(1, 2), add.s(3, 4)))


def _delay(state: TaskState) -> None:
    say.delay("x")


def _delay_by_name(state: TaskState) -> None:
    state.app.send_task(say.name, ["x"])


def _running(state: TaskState) -> Execution:
    def begin(connection: Connection) -> Execution:
        ref = jobs.take_up(connection, jobs.add_task(connection, "outer")).ref
        execution = Execution(ref, key=ExecutionKey("outer"), name="outer")
        runner = executions_begin.Runner(worker=None, host="h", pid=1, pid_started=None)
        executions_begin.begin(connection, ref, execution.key, name="outer", runner=runner)
        return execution

    return state.tracker.write(begin)


def _publish_while_running(state: TaskState) -> None:
    execution = _running(state)
    leave = enter(execution)
    say.delay("x")
    leave()
    state.tracker.flush(execution)


def _publish_and_end(state: TaskState) -> None:
    execution = _running(state)
    leave = enter(execution)
    say.delay("x")
    leave()
    state.tracker.close(execution, ExecutionState.SUCCESS)


def _publish_after_the_end(state: TaskState) -> None:
    execution = _running(state)
    state.tracker.close(execution, ExecutionState.RETRY)
    leave = enter(execution)
    say.delay("x")
    leave()


@pytest.mark.parametrize(
    "publish",
    [
        _start_one,
        _start_a_chain,
        _start_a_group,
        _delay,
        _delay_by_name,
        _publish_while_running,
        _publish_and_end,
        _publish_after_the_end,
    ],
    ids=lambda publish: publish.__name__.strip("_"),
)
@pytest.mark.parametrize("seconds", [60, 86400])
def test_message_nobody_begins_is_lost_after_the_publish_deadline(
    make_state: MakeState, publish: Callable[[TaskState], None], seconds: float
) -> None:
    state = make_state(publish_deadline_seconds=seconds)

    publish(state)

    columns = execution_table.c
    with state.database.reading() as connection:
        waiting = select(columns.published_at, columns.deadline_at).where(columns.state == "QUEUED")
        rows = connection.execute(waiting).all()
    assert rows
    for row in rows:
        assert row.deadline_at - row.published_at == timedelta(seconds=seconds)
