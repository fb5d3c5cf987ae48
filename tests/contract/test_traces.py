"""The trace of OpenTelemetry that is kept with an execution."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from celery import chain

from qhana_taskstate import TaskState
from qhana_taskstate.cli.text import tree
from qhana_taskstate.reading.rows.executions import executions
from tests.apps.jobs import add, nothing
from tests.contract.conftest import MakeState

# Only what the extra `test` brings; an environment from before it has none.
trace: Any = pytest.importorskip("opentelemetry.trace")

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.fixture
def span() -> Iterator[None]:
    """A span that is open in this thread."""
    context = trace.SpanContext(int(TRACE, 16), 0xB7AD6B7169203331, is_remote=False, trace_flags=trace.TraceFlags(1))
    with trace.use_span(trace.NonRecordingSpan(context)):
        yield


def traces(state: TaskState, task_id: int) -> list[str | None]:
    """Return the trace of each execution of a task."""
    with state.database.reading() as connection:
        return [view.trace_id for view in executions(connection, task_id)]


@pytest.mark.usefixtures("span")
def test_execution_keeps_the_trace_that_is_open_where_it_runs(eager: TaskState) -> None:
    task = eager.start(nothing.si())
    assert traces(eager, task.id) == [TRACE]
    with eager.database.reading() as connection:
        assert any(f"trace {TRACE}" in line for line in tree.lines(executions(connection, task.id)))


def test_execution_keeps_the_trace_that_its_message_carries(eager: TaskState) -> None:
    for headers, expected in (
        ({"traceparent": PARENT}, TRACE),
        ({"traceparent": "00-" + "0" * 32 + "-b7ad6b7169203331-01"}, None),
        ({"traceparent": "of somebody else"}, None),
        ({}, None),
    ):
        task = eager.start(nothing.si(), headers=headers)
        assert traces(eager, task.id) == [expected]


@pytest.mark.usefixtures("span")
def test_message_carries_the_trace_that_it_is_published_in(make_state: MakeState) -> None:
    state = make_state()
    state.app.conf.task_default_queue = "traces"
    state.start(chain(add.si(1, 2), nothing.si()))
    with state.app.connection_for_read() as connection:
        message = connection.SimpleQueue("traces").get(timeout=5)
    assert message.headers["traceparent"] == PARENT


def test_opentelemetry_is_not_loaded_by_us() -> None:
    code = "import sys; from qhana_taskstate.context import traces; traces.pass_on({}, None); "
    code += "assert 'opentelemetry' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
