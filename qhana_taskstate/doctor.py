"""Examines a set-up the way an expert would: small checks of plain values, and what gathers those values."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from kombu.exceptions import KombuError
from sqlalchemy import func, inspect, select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from . import chores, probe, reader, schema, store, tasklog
from .belonging import OWN_TASK_PREFIX
from .database import database_time
from .errors import DatabaseUnavailableError, SchemaError, TaskStateError
from .integration import TaskState
from .states import ExecutionState
from .submission import Submitter
from .tables import delivery_table, execution_table

#: Differences of clocks in seconds that do no harm.
CLOCK_TOLERANCE_SECONDS: Final = 2.0

#: A delivery that is due for longer, in seconds, should have been made.
DELIVERY_PATIENCE_SECONDS: Final = 300.0

#: A queued message without a worker for longer, in seconds, is worth a look.
SILENCE_PATIENCE_SECONDS: Final = 3600.0

#: How many ids a finding names.
_NAMED: Final = 10

#: kombu's default (kombu 5.7, Redis), in seconds.
_VISIBILITY_SECONDS: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        check: Its name.
        ok: Whether all is well.
        seen: What was seen.
        advice: What to change; empty if all is well.
    """

    check: str
    ok: bool
    seen: str
    advice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """What Celery is told about a task.

    Attributes:
        name: Its name.
        acks_late: Whether the broker keeps its message until the end.
        reject_on_worker_lost: Whether the message goes back when the worker is lost.
        time_limit: Seconds after which it is killed, None for no limit.
    """

    name: str
    acks_late: bool
    reject_on_worker_lost: bool
    time_limit: float | None


def check_schema(revision: str | None, known: Sequence[str]) -> Finding:
    """Check the version of the tables.

    Args:
        revision: That of the database, None if there are no tables.
        known: All versions that this package knows, oldest first.
    """
    if revision == known[-1]:
        return Finding("schema", True, f"version {revision}")
    if revision is None:
        return Finding("schema", False, "the tables are missing", f"run: {schema.UPGRADE_COMMAND}")
    if revision in known:
        return Finding(
            "schema", False, f"version {revision}, the newest is {known[-1]}", f"run: {schema.UPGRADE_COMMAND}"
        )
    return Finding("schema", False, f"version {revision}, which is newer than this package", "upgrade the package")


def check_clocks(
    asked: float, answered: float, database: float, workers: Mapping[str, float], *, database_asked: tuple[float, float]
) -> list[Finding]:
    """Check that the workers' clocks and the database's go together. Pure; all values in seconds since the epoch.

    Args:
        asked: When the workers were asked, by our clock.
        answered: When the last of them had answered, by our clock.
        database: What the database's clock said.
        workers: What each worker's clock said.
        database_asked: When the database was asked and had answered, by our clock.
    """
    slow, fast = database - database_asked[1], database - database_asked[0]
    findings = []
    for name, told in sorted(workers.items()):
        # Both differences to our clock are known as far as the time of asking allows; what is left is certain.
        lowest, highest = told - answered - fast, told - asked - slow
        certain = max(lowest, 0.0) or min(highest, 0.0)
        seen = f"{name} is {abs(certain):.1f} s {'ahead of' if certain > 0 else 'behind'} the database, at least"
        if abs(certain) > CLOCK_TOLERANCE_SECONDS:
            findings.append(Finding("clock", False, seen, "let NTP set the clocks of workers and database server"))
        else:
            findings.append(Finding("clock", True, f"{name} and the database go together"))
    return findings


def check_time_limits(tasks: Collection[TaskOptions], visibility_seconds: float | None) -> Finding:
    """Check that no message is delivered again while its task still runs.

    Args:
        tasks: All tasks of the app.
        visibility_seconds: After how long the broker delivers an unacknowledged message again; None for never.
    """
    if visibility_seconds is None:
        return Finding("time limits", True, "the broker delivers again only what lost its connection")
    late = [task for task in tasks if task.acks_late]
    unlimited = sorted(task.name for task in late if task.time_limit is None)
    longer = sorted(task.name for task in late if task.time_limit is not None and task.time_limit >= visibility_seconds)
    if longer:
        return Finding(
            "time limits",
            False,
            f"{_names(longer)} may run longer than the visibility timeout of {visibility_seconds:g} s, and then twice",
            "set broker_transport_options['visibility_timeout'] above the longest time_limit",
        )
    if unlimited:
        return Finding(
            "time limits",
            False,
            f"{_names(unlimited)} acknowledge late without a time_limit: after {visibility_seconds:g} s they run twice",
            "set time_limit below broker_transport_options['visibility_timeout'], or raise that",
        )
    return Finding("time limits", True, f"below the visibility timeout of {visibility_seconds:g} s")


def check_late_acknowledgement(tasks: Collection[TaskOptions]) -> Finding:
    """Check that a message that is kept until the end is also kept when its worker is lost."""
    lost = sorted(task.name for task in tasks if task.acks_late and not task.reject_on_worker_lost)
    if lost:
        return Finding(
            "late acknowledgement",
            False,
            f"{_names(lost)} acknowledge late, but not when a pool process is lost: they end as ERROR then",
            "set task_reject_on_worker_lost = True, or reject_on_worker_lost=True at the task",
        )
    return Finding("late acknowledgement", True, "no task loses its message with its worker")


def check_queues(consumed: Mapping[str, Collection[str]], webhook_queue: str) -> Finding:
    """Check that somebody makes the calls to subscribers.

    Args:
        consumed: The queues of each worker that answered.
        webhook_queue: Where the deliveries are sent.
    """
    if not consumed:
        return Finding("workers", False, "no worker answered", "start one: celery -A worker worker")
    serving = sorted(name for name, queues in consumed.items() if webhook_queue in queues)
    if not serving:
        return Finding(
            "webhook queue",
            False,
            f"none of {len(consumed)} workers consumes the queue {webhook_queue!r}, so no subscriber is told",
            f"start a worker with -Q {webhook_queue}, or change taskstate_webhook_queue",
        )
    return Finding("webhook queue", True, f"{webhook_queue!r} is consumed by {_names(serving)}")


def check_heartbeats(beats: Collection[datetime], moment: datetime, lost_after_seconds: float) -> Finding:
    """Check that what runs shows that it is alive.

    Args:
        beats: The last sign of life of each running execution.
        moment: Now, by the same clock.
        lost_after_seconds: Silence that counts.
    """
    silent = [beat for beat in beats if moment - beat > timedelta(seconds=lost_after_seconds)]
    if silent:
        oldest = (moment - min(silent)).total_seconds()
        return Finding(
            "heartbeats",
            False,
            f"{len(silent)} of {len(beats)} running executions gave no sign of life for up to {oldest:.0f} s",
            "let a worker run, or: celery -A worker taskstate upkeep",
        )
    return Finding("heartbeats", True, f"{len(beats)} running executions are alive")


def check_upkeep(until: datetime | None, moment: datetime, interval_seconds: float, *, idle: bool) -> Finding:
    """Check that somebody looks for lost work.

    Args:
        until: How long the right of whoever looks lasts, by the database's clock; None if nobody ever looked.
        moment: Now, by the same clock.
        interval_seconds: Time between two looks.
        idle: There is nothing to look for, so that nobody does.
    """
    if idle:
        return Finding("upkeep", True, "nothing is open that could be lost")
    if until is None or moment - until > timedelta(seconds=2 * interval_seconds):
        told = "nobody has ever looked" if until is None else f"nobody has looked since {until:%Y-%m-%d %H:%M:%S} UTC"
        return Finding(
            "upkeep", False, f"{told} for lost work", "let a worker run, or: celery -A worker taskstate upkeep"
        )
    return Finding("upkeep", True, "somebody looks for lost work")


def check_deliveries(due: datetime | None, moment: datetime) -> Finding:
    """Check that subscribers are told in time.

    Args:
        due: When the oldest call that is still to be made was due, None if there is none.
        moment: Now, by the same clock.
    """
    if due is not None and moment - due > timedelta(seconds=DELIVERY_PATIENCE_SECONDS):
        return Finding(
            "deliveries",
            False,
            f"the oldest notification waits since {due:%Y-%m-%d %H:%M:%S} UTC",
            "see that a worker consumes the webhook queue, and what the receivers answer",
        )
    return Finding("deliveries", True, "no notification is late")


def check_silence(task_ids: Collection[int]) -> Finding:
    """Check that no task has been forgotten.

    Args:
        task_ids: Open tasks of which nothing runs, and whose messages nobody has begun for long.
    """
    if task_ids:
        named = ", ".join(str(task_id) for task_id in sorted(task_ids)[:_NAMED])
        return Finding(
            "silent tasks",
            False,
            f"{len(task_ids)} open tasks give no sign of life: {named}{' ...' if len(task_ids) > _NAMED else ''}",
            "see what they wait for: celery -A worker taskstate show ID; do workers consume their queues?",
        )
    return Finding("silent tasks", True, "every open task runs, waits at a step, or was published lately")


def check_probe(status: str | None, executions: int, log: str, seconds: float) -> Finding:
    """Check what came of the probe.

    Args:
        status: Its status, None if it had not ended in time.
        executions: How many of its executions were recorded as succeeded.
        log: Its log.
        seconds: How long it took, or was waited for.
    """
    if status is None:
        return Finding(
            "probe",
            False,
            f"a probe canvas did not come back within {seconds:g} s",
            "see that a worker runs, consumes the default queue, and has a free process",
        )
    if status != "SUCCESS" or executions < 2:
        return Finding(
            "probe",
            False,
            f"a probe canvas ended as {status}: {' '.join(log.split()) or 'nothing in its log'}",
            "let all workers use this version of the package, and see that nothing removes message headers",
        )
    return Finding("probe", True, f"a probe canvas came back after {seconds:.1f} s")


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (" ..." if len(names) > _NAMED else "")


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
            if not name.startswith(("celery.", OWN_TASK_PREFIX, probe.TASK_NAME))
        ]

    def _visibility_seconds(self) -> float | None:
        conf = self._state.app.conf
        url = str(conf.broker_read_url or conf.broker_url or "")
        if not url.startswith(("redis", "rediss", "sentinel", "sqs")):
            return None
        return float((conf.broker_transport_options or {}).get("visibility_timeout", _VISIBILITY_SECONDS))

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
            seen = chores.glance(connection)
            yield check_upkeep(seen.until, moment, state.parts.upkeep.interval_seconds, idle=seen.idle)
            if inspect(connection).has_table(delivery_table.name):
                due = connection.execute(select(func.min(delivery_table.c.due_at))).scalar()
                yield check_deliveries(due, moment)
            yield check_silence(
                reader.silent_task_ids(connection, moment - timedelta(seconds=SILENCE_PATIENCE_SECONDS))
            )

    def _examine_workers(self) -> Iterator[Finding]:
        state = self._state
        Submitter(state.app, state.tracker).probe_broker()
        inspection = state.app.control.inspect(timeout=self._timeout)
        consumed = {
            worker: {queue["name"] for queue in queues} for worker, queues in (inspection.active_queues() or {}).items()
        }
        yield check_queues(consumed, state.settings.webhook_queue or state.app.conf.task_default_queue)
        if not consumed:
            return
        asked = time.time()
        answers = state.app.control.broadcast(
            probe.CLOCK_COMMAND, reply=True, timeout=self._timeout, limit=len(consumed)
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
        task_id = state.start(probe.canvas(state.app), task_name=probe.TASK_NAME).id
        status: str | None = None
        with suppress(TimeoutError):
            status = state.wait(task_id, timeout=self._timeout).status
        with state.database.reading() as connection:
            states = [execution.state for execution in reader.executions(connection, task_id)]
            log = tasklog.read(connection, task_id)
        succeeded = states.count(ExecutionState.SUCCESS.value)
        finding = check_probe(status, succeeded, log, time.monotonic() - began)
        if status is None:
            state.cancel(task_id, reason="it did not come back in time")
        elif finding.ok:
            # It told what it was sent for; a task that failed is kept for `show`.
            with state.database.transaction() as connection:
                store.remove(connection, task_id)
        return finding
