"""The fact that an execution began: what is written, and what if the database refuses that."""

from __future__ import annotations

import os
from collections.abc import Callable, Container
from datetime import datetime
from functools import partial

from sqlalchemy import Connection

from ...clock import now
from ...context.execution import Execution
from ...context.traces import trace_of
from ...facts import ExecutionKey, TaskRef
from ...store.executions.begin import Begun, begin, begin_script
from ...texts import in_ascii
from ..backlog import Fact
from ..this_process import runner

#: Tasks and keys of executions.
RunningHere = Container[tuple[TaskRef, ExecutionKey]]


def fact_of_begin(execution: Execution, running_here: RunningHere | None, written: Callable[[Begun], None]) -> Fact:
    """Make the fact that an execution begins now in this process.

    Args:
        execution: It.
        running_here: What runs in this process besides it; None if it may run twice.
        written: Called with what the database said.
    """
    moment = now()
    request, ref, key = execution.request, execution.ref, execution.key
    write = begin_script(
        ref,
        key,
        name=execution.name,
        parent_id=getattr(request, "parent_id", None),
        moment=moment,
        runner=runner(getattr(request, "hostname", None), os.getpid()),
        acks_late=bool(execution.acks_late),
        max_retries=execution.max_retries,
        trace_id=trace_of(request),
        running_here=running_here,
    )
    text = f"{execution.name} began at {moment.isoformat()}: {key}"
    bare = Fact(ref.task_id, text, partial(_begin_barely, execution, moment, running_here), written)
    return Fact(ref.task_id, text, write, written, plainer=lambda: bare)


def _begin_barely(
    execution: Execution, moment: datetime, running_here: RunningHere | None, connection: Connection
) -> Begun:
    """Begin an execution with no more than a lease needs: by these values the process is known to live."""
    return begin(
        connection,
        execution.ref,
        execution.key,
        name=in_ascii(execution.name),
        moment=moment,
        runner=runner(None, os.getpid()),
        acks_late=bool(execution.acks_late),
        running_here=running_here,
    )
