"""Examines a set-up: reads settings, database, broker and workers, and lets the checks judge."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta

from kombu.exceptions import KombuError
from sqlalchemy import func, inspect, select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from ...broker import doctor_task
from ...context.header import OWN_TASK_PREFIX
from ...database import schema
from ...database.dialects import database_time
from ...database.tables.deliveries import delivery_table
from ...database.tables.executions import execution_table
from ...errors import DatabaseUnavailableError, SchemaError, TaskStateError
from ...facade import TaskState
from ...reading.rows import executions
from ...reading.tasks import silent_task_ids
from ...states import ExecutionState
from ...store.log import entries
from ...store.task import removal
from ...tracking.submission.publish import probe_broker
from ...upkeep import leader
from .checks import (
    CLOCK_TOLERANCE_SECONDS,
    SILENCE_PATIENCE_SECONDS,
    VISIBILITY_SECONDS,
    Finding,
    TaskOptions,
    check_clocks,
    check_deliveries,
    check_heartbeats,
    check_late_acknowledgement,
    check_probe,
    check_queues,
    check_schema,
    check_silence,
    check_time_limits,
    check_upkeep,
)


class Doctor:
    """Gathers what the checks need from a `TaskState`, its workers, its broker and its database.

    Args:
        state: What is examined.
        timeout: Seconds to wait for workers, and for the probe.
        sends_probe: Whether the probe is sent; it is a task with rows of its own, which are removed afterwards.
    """

    def __init__(self, state: TaskState, *, timeout: float, sends_probe: bool = True) -> None:
        self._state = state
        self._timeout = timeout
        self._sends_probe = sends_probe

    def examine(self) -> list[Finding]:
        """Run all checks. What cannot be reached is a finding, not an error."""
        found = list(self._examine_configuration())
        database = self._reached("database", self._examine_database)
        workers = self._reached("broker", self._examine_workers)
        found += [*database, *workers]
        if self._sends_probe and database[0].ok and workers[0].ok:
            found += self._reached("probe", self._probe)
        return found

    def _reached(self, check: str, examine: Callable[[], Iterator[Finding]]) -> list[Finding]:
        """Run checks; what cannot be reached is a finding."""
        try:
            return list(examine())
        except (TaskStateError, SQLAlchemyError, KombuError, OSError) as exc:
            cause = exc.orig if isinstance(exc, DBAPIError) and exc.orig is not None else exc
            seen = f"{type(cause).__name__}: {' '.join(str(cause).split())}"
            return [Finding(check, False, seen, "see that it runs and that its URL is right")]

    def _examine_configuration(self) -> Iterator[Finding]:
        tasks = self._tasks()
        yield check_time_limits(tasks, self._visibility_seconds())
        yield check_late_acknowledgement(tasks)

    def _tasks(self) -> list[TaskOptions]:
        app = self._state.app
        app.loader.import_default_modules()
        app.finalize()
        return [
            TaskOptions(
                name=name,
                acks_late=bool(task.acks_late),
                reject_on_worker_lost=bool(task.reject_on_worker_lost),
                time_limit=task.time_limit or app.conf.task_time_limit,
            )
            for name, task in app.tasks.items()
            if not name.startswith(("celery.", OWN_TASK_PREFIX, doctor_task.TASK_NAME))
        ]

    def _visibility_seconds(self) -> float | None:
        conf = self._state.app.conf
        url = str(conf.broker_read_url or conf.broker_url or "")
        if not url.startswith(("redis", "rediss", "sentinel", "sqs")):
            return None
        return float((conf.broker_transport_options or {}).get("visibility_timeout", VISIBILITY_SECONDS))

    def _examine_database(self) -> Iterator[Finding]:
        state, settings = self._state, self._state.settings
        finding = check_schema(schema.current_revision(state.database), schema.known_revisions())
        yield finding
        try:
            schema.check(state.database)
        except SchemaError:
            return
        with state.database.reading() as connection:
            moment = database_time(connection)
            beats = connection.execute(
                select(execution_table.c.heartbeat_at).where(
                    execution_table.c.closed_at.is_(None),
                    execution_table.c.state == ExecutionState.RUNNING.value,
                    execution_table.c.heartbeat_at.is_not(None),
                )
            ).scalars()
            # Who begins writes its first sign of life by its own clock.
            yield check_heartbeats(list(beats), moment, settings.lost_after_seconds + CLOCK_TOLERANCE_SECONDS)
            seen = leader.glance(connection)
            yield check_upkeep(seen.until, moment, state.parts.upkeep.interval_seconds, idle=seen.idle)
            if inspect(connection).has_table(delivery_table.name):
                due = connection.execute(select(func.min(delivery_table.c.due_at))).scalar()
                yield check_deliveries(due, moment)
            yield check_silence(silent_task_ids(connection, moment - timedelta(seconds=SILENCE_PATIENCE_SECONDS)))

    def _examine_workers(self) -> Iterator[Finding]:
        state = self._state
        probe_broker(state.app)
        inspection = state.app.control.inspect(timeout=self._timeout)
        consumed = {
            worker: {queue["name"] for queue in queues} for worker, queues in (inspection.active_queues() or {}).items()
        }
        yield check_queues(consumed, state.settings.webhook_queue or state.app.conf.task_default_queue)
        if not consumed:
            return
        asked = time.time()
        answers = state.app.control.broadcast(
            doctor_task.CLOCK_COMMAND, reply=True, timeout=self._timeout, limit=len(consumed)
        )
        answered = time.time()
        told = {
            worker: float(answer["time"])
            for reply in answers or []
            for worker, answer in reply.items()
            if isinstance(answer, dict) and "time" in answer
        }
        with suppress(DBAPIError, DatabaseUnavailableError), state.database.reading() as connection:
            before = time.time()
            database = database_time(connection).timestamp()
            yield from check_clocks(asked, answered, database, told, database_asked=(before, time.time()))

    def _probe(self) -> Iterator[Finding]:
        # In a session of its own: the row is removed behind its back.
        with self._state.session_scope():
            yield self._send_probe()

    def _send_probe(self) -> Finding:
        state = self._state
        began = time.monotonic()
        task_id = state.start(doctor_task.canvas(state.app), task_name=doctor_task.TASK_NAME).id
        status: str | None = None
        with suppress(TimeoutError):
            status = state.wait(task_id, timeout=self._timeout).status
        with state.database.reading() as connection:
            states = [execution.state for execution in executions.executions(connection, task_id)]
            log = entries.read(connection, task_id)
        succeeded = states.count(ExecutionState.SUCCESS.value)
        finding = check_probe(status, succeeded, log, time.monotonic() - began)
        if status is None:
            state.cancel(task_id, reason="it did not come back in time")
        elif finding.ok:
            # It told what it was sent for; a task that failed is kept for `show`.
            with state.database.transaction() as connection:
                removal.remove(connection, task_id)
        return finding
