"""`GET /metrics`: the rows as Prometheus metrics (the extra `metrics`)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from threading import Lock
from typing import Any, Final

from flask import Response
from flask_smorest import Blueprint
from sqlalchemy import Connection, String, func, select, type_coerce
from webargs.flaskparser import abort

from ...database.dialects import database_time
from ...database.tables.deliveries import delivery_table
from ...database.tables.executions import execution_table
from ...database.tables.runner import step_table, task_table
from ...states import UNKNOWN, ExecutionState, TaskStatus, with_error_word
from ..site import Site

try:
    import prometheus_client
    from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily
except ImportError:  # the extra is not installed, which the view then says
    prometheus_client = None  # type: ignore[assignment]

#: Upper bounds of the durations, in seconds.
_BOUNDS: Final = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)

#: Durations are those of so many tasks that ended last.
_NEWEST: Final = 5000

#: What was counted is told again for so many seconds, and for so many times as long as it took to count.
_KEPT_SECONDS: Final = 5.0
_KEPT_TIMES: Final = 20.0


class Metrics:
    """The view.

    Args:
        site: What it belongs to.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._guard = Lock()
        self._text = b""
        self._until = 0.0

    def register(self, blueprint: Blueprint) -> None:
        """Add the view to a blueprint."""
        get = blueprint.alt_response(501, description="The extra `metrics` is not installed.")(self.get)
        get = blueprint.response(200, content_type="text/plain", description="In the text format of Prometheus.")(get)
        blueprint.route("/metrics", methods=["GET"], endpoint="metrics")(get)

    def get(self) -> Response:
        """Tell the state of all tasks to Prometheus."""
        if prometheus_client is None:
            abort(501, message="Metrics need the extra: pip install 'qhana_taskstate[metrics]'.")
        state = self._site.taskstate()
        with self._guard, state.sessions.explaining():
            begun = time.monotonic()
            if begun >= self._until:
                with state.database.reading() as connection:
                    families = list(_families(connection, state.settings.error_status))
                self._text = prometheus_client.generate_latest(_Once(families))
                ended = time.monotonic()
                self._until = ended + max(_KEPT_SECONDS, _KEPT_TIMES * (ended - begun))
            return Response(self._text, content_type=prometheus_client.CONTENT_TYPE_LATEST)


class _Once(prometheus_client.CollectorRegistry if prometheus_client is not None else object):  # type: ignore[misc]
    """A registry of what was counted just now."""

    def __init__(self, families: list[Any]) -> None:
        super().__init__()
        self._families = families

    def collect(self) -> Iterator[Any]:
        """Return what was counted."""
        yield from self._families


def _families(connection: Connection, error_word: str) -> Iterator[Any]:
    yield _tasks(connection, error_word)
    yield _durations(connection, error_word)
    yield from _executions(connection)
    uncleared = (step_table.c.cleared.is_(False)) | (step_table.c.cleared.is_(None))
    waiting = select(func.count()).select_from(step_table).join(task_table, task_table.c.id == step_table.c.id)
    waiting = waiting.where(uncleared, task_table.c.finished_at.is_(None))
    yield _gauge("taskstate_open_steps", "Steps that wait for a person.", connection.execute(waiting).scalar_one())
    pending = select(func.count()).where(delivery_table.c.due_at.is_not(None))
    dead = select(func.count()).where(delivery_table.c.dead_at.is_not(None), delivery_table.c.due_at.is_(None))
    yield _gauge(
        "taskstate_deliveries_pending", "Webhook deliveries that are owed.", connection.execute(pending).scalar_one()
    )
    yield _gauge("taskstate_deliveries_dead", "Webhook deliveries given up.", connection.execute(dead).scalar_one())


def _gauge(name: str, told: str, value: float) -> Any:
    return GaugeMetricFamily(name, told, value=value)


def _word() -> Any:
    return type_coerce(task_table.c.task_status, String)


def _tasks(connection: Connection, error_word: str) -> Any:
    family = GaugeMetricFamily("taskstate_tasks", "Tasks by name and status.", labels=["name", "status"])
    ended = task_table.c.finished_at.is_not(None)
    query = select(task_table.c.task_name, ended, _word(), func.count()).group_by(
        task_table.c.task_name, ended, _word()
    )
    counts: dict[tuple[str, str], int] = {}
    for name, is_ended, word, count in connection.execute(query):
        key = (name or "", _status(bool(is_ended), word, error_word))
        counts[key] = counts.get(key, 0) + count
    for (name, status), count in sorted(counts.items()):
        family.add_metric([name, status], count)
    return family


def _status(ended: bool, word: str | None, error_word: str) -> str:
    return (with_error_word(word, error_word) or UNKNOWN) if ended else TaskStatus.PENDING.value


def _durations(connection: Connection, error_word: str) -> Any:
    told = f"How long the newest {_NEWEST} tasks that have ended took, in seconds."
    family = HistogramMetricFamily("taskstate_duration_seconds", told, labels=["name", "status"])
    query = select(task_table.c.task_name, task_table.c.started_at, task_table.c.finished_at, _word())
    query = query.where(task_table.c.finished_at.is_not(None)).order_by(task_table.c.id.desc()).limit(_NEWEST)
    found: dict[tuple[str, str], list[float]] = {}
    for name, started_at, finished_at, word in connection.execute(query):
        seconds = max(0.0, (finished_at - started_at).total_seconds())
        found.setdefault((name or "", _status(True, word, error_word)), []).append(seconds)
    for (name, status), values in sorted(found.items()):
        buckets = [(str(bound), float(sum(value <= bound for value in values))) for bound in _BOUNDS]
        family.add_metric([name, status], [*buckets, ("+Inf", float(len(values)))], sum(values))
    return family


def _executions(connection: Connection) -> Iterator[Any]:
    moment = database_time(connection)
    table = execution_table.c
    open_ = GaugeMetricFamily("taskstate_open_executions", "Messages by queue and state.", labels=["queue", "state"])
    query = select(table.queue, table.state, func.count()).where(table.closed_at.is_(None))
    for queue, state, count in connection.execute(query.group_by(table.queue, table.state)):
        open_.add_metric([queue or "", state], count)
    yield open_
    age = GaugeMetricFamily(
        "taskstate_queue_age_seconds", "Age of the oldest message that could begin.", labels=["queue"]
    )
    could_begin = func.coalesce(table.eta, table.published_at)
    oldest = select(table.queue, func.min(could_begin, type_=table.published_at.type))
    oldest = oldest.where(table.closed_at.is_(None), table.state == ExecutionState.QUEUED.value).group_by(table.queue)
    for queue, since in connection.execute(oldest):
        if since is not None:
            age.add_metric([queue or ""], max(0.0, (moment - since).total_seconds()))
    yield age
    lost = select(func.count()).where(table.state == ExecutionState.LOST.value)
    yield _gauge("taskstate_lost_executions", "Messages whose worker was lost.", connection.execute(lost).scalar_one())
