"""Starts executions at which something strikes, and tells which of them did not end as they have to."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from celery import signature
from sqlalchemy import literal, select

from qhana_taskstate.database.tables.executions import execution_table
from qhana_taskstate.database.tables.jobs import job_table
from tests.canvas.deployment import Deployment
from tests.exits.injection import KINDS
from tests.waiting import wait_until

#: What the bodies do: return, raise, and ask for another attempt.
BODIES = ("return", "raise", "retry")

#: How often it is looked whether all have ended: a look takes its time where thousands are open.
_LOOK_SECONDS = 0.2


def kinds_of(pool: str) -> tuple[str, ...]:
    """Return what can strike in a pool; only the children of a prefork pool get signals."""
    return KINDS if pool == "prefork" else tuple(kind for kind in KINDS if kind != "signal")


def count_lines(deployment: Deployment, body: str, path: Path) -> int:
    """Return how many lines of ours run from the begin of an execution to its end.

    Args:
        deployment: Whose worker runs it.
        body: What its body does.
        path: The file that the injector of the worker writes.
    """
    for _ in range(2):
        # The second time, when all is imported and connected.
        path.unlink(missing_ok=True)
        start(deployment, "count:0", body)
        wait_until("the lines are counted", lambda: path.exists() and path.read_text(), timeout=20)
    return int(path.read_text())


def start(deployment: Deployment, strike: str, body: str) -> int:
    """Start one; returns the id of its task."""
    work = signature("tests.apps.exits.struck", kwargs={"strike": strike, "body": body}, app=deployment.app)
    return deployment.taskstate.start(work).id


def wrong(deployment: Deployment, started: dict[int, str], seconds: float) -> list[str]:
    """Wait until all have ended, so long at most, and tell what is wrong with the others.

    Args:
        deployment: Where they run.
        started: What struck where, by the id of the task.
        seconds: `lost_after`, and time to run all of them.
    """

    try:
        wait_until("all have ended", lambda: not _open_ones(deployment), timeout=seconds, interval=_LOOK_SECONDS)
    except AssertionError:
        return [f"{started.get(task_id, 'no strike')}: {state}" for task_id, state in _open_ones(deployment).items()]
    return []


def _open_ones(deployment: Deployment) -> dict[int, str]:
    """Return the tasks that have not ended or have an open execution, with its state."""
    with deployment.taskstate.database.reading() as connection:
        pending = select(job_table.c.task_id, literal("PENDING")).where(job_table.c.end_status.is_(None))
        running = select(execution_table.c.task_id, execution_table.c.state).where(
            execution_table.c.closed_at.is_(None)
        )
        return {row[0]: row[1] for query in (pending, running) for row in connection.execute(query)}


def states(deployment: Deployment, started: Iterable[int]) -> dict[int, list[str]]:
    """Return the states of the executions of each task."""
    with deployment.taskstate.database.reading() as connection:
        rows = connection.execute(
            select(execution_table.c.task_id, execution_table.c.state).order_by(execution_table.c.retries)
        )
        found: dict[int, list[str]] = {task_id: [] for task_id in started}
        for row in rows:
            if row.task_id in found:
                found[row.task_id].append(row.state)
    return found
