"""Starts executions at which something strikes, and tells which of them did not end as they have to."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from celery import signature
from sqlalchemy import select

from qhana_taskstate.database.tables.executions import execution_table
from qhana_taskstate.database.tables.jobs import job_table
from tests.canvas.deployment import Deployment
from tests.exits.injection import KINDS
from tests.waiting import wait_until

#: What the bodies do: return, raise, and ask for another attempt.
BODIES = ("return", "raise", "retry")


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

    def open_ones() -> dict[int, str]:
        with deployment.taskstate.database.reading() as connection:
            ended = select(job_table.c.task_id).where(job_table.c.end_status.is_not(None))
            still = select(execution_table.c.task_id, execution_table.c.state).where(
                execution_table.c.closed_at.is_(None)
            )
            running = {row.task_id: row.state for row in connection.execute(still)}
            done = set(connection.execute(ended).scalars())
        return {
            task_id: running.get(task_id, "PENDING") for task_id in started if task_id in running or task_id not in done
        }

    try:
        wait_until("all have ended", lambda: not open_ones(), timeout=seconds)
    except AssertionError:
        return [f"{started[task_id]}: {state}" for task_id, state in open_ones().items()]
    return []


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
