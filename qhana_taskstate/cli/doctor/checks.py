"""What may be wrong with a set-up: small checks of plain values. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from ...database import schema

#: Differences of clocks in seconds that do no harm.
CLOCK_TOLERANCE_SECONDS: Final = 2.0


#: A delivery that is due for longer, in seconds, should have been made.
DELIVERY_PATIENCE_SECONDS: Final = 300.0


#: A queued message without a worker for longer, in seconds, is worth a look.
SILENCE_PATIENCE_SECONDS: Final = 3600.0


#: How many ids a finding names.
_NAMED: Final = 10


#: kombu's default (kombu 5.7, Redis), in seconds.
VISIBILITY_SECONDS: Final = 3600.0


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
        until: How long the right of the observer lasts, by the database's clock; None if nobody ever looked.
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
            f"the oldest delivery waits since {due:%Y-%m-%d %H:%M:%S} UTC",
            "see that a worker consumes the webhook queue, and what the receivers answer",
        )
    return Finding("deliveries", True, "no delivery is late")


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
