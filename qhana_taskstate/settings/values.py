"""The settings themselves: name, default and unit of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Final

from .lease_time import HEARTBEAT_SECONDS, HOLD_SECONDS, LEASE_SECONDS
from .parsing import (
    DAY,
    allowed_networks,
    call_seconds,
    checked_text,
    count,
    error_word,
    log_level,
    optional_seconds,
    optional_text,
    schedule,
    seconds,
    seconds_or_zero,
    secrets_of,
    switch,
    task_names,
)

#: Prefix of every setting in Celery's configuration.
PREFIX: Final = "taskstate_"


#: Prefix of every setting in the environment.
ENVIRONMENT_PREFIX: Final = "TASKSTATE_"


def _setting(default: Any, parse: Callable[[object], Any], *, secret: bool = False) -> Any:
    return dataclasses.field(default=default, repr=not secret, metadata={"parse": parse})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of one `TaskState`, checked, and kept for as long as the `TaskState` that read them.

    Attributes:
        database_url: SQLAlchemy URL of the database that holds the task states.
        test_database_url: SQLAlchemy URL used in its place inside Django's test environment; an in-memory database gets
            its tables by itself. None uses `database_url` there too.
        error_status: Word stored and returned in Python for a failed task: ERROR or FAILURE.
        wire_error_status: Word for a failed task in JSON that leaves the process: ERROR or FAILURE.
        heartbeat_seconds: How often the lease of a running execution is renewed.
        lost_after_seconds: Silence of a lease after which its execution is looked into.
        flush_interval_seconds: Reported progress and log are written at most this often.
        log_column_bytes: How many UTF-8 bytes of the newest log the `task_log` column itself holds.
        capture_log_level: Records of the `logging` module from this level on, emitted inside an execution, go
            into the task's log. None captures nothing.
        track: Tasks that are tracked without the decorator: names with wildcards, `!` leaves some out; `db_id` means
            those with a parameter of that name.
        db_id_finishes: False makes a task open-ended when work arrives for it by `db_id`: it ends by `finish`, a status
            set by hand, a failure, or `cancel`.
        canvas_progress: A task of several executions shows how many of them are done; False shows what the last of
            them reported.
        hold_seconds: A submission that was not heard of for so long counts as dead.
        keep_facts_seconds: How long a process keeps in memory what it cannot write while the database is away.
        publish_deadline_seconds: A message not begun so long after its publication or eta counts as lost.
        missing_after_seconds: A message not begun so long after its publication is looked for in the broker.
        prune_after_seconds: Tasks that finished so long ago are removed; None removes none by itself.
        max_redeliveries: How often the broker may deliver one message again after it lost its worker.
        webhooks: Whether subscribers are told; False where the host does so itself.
        webhook_secrets: Standard Webhooks secrets; the first signs first.
        webhook_allowed_networks: CIDRs and host names that a webhook may reach beyond public addresses.
        webhook_retry_schedule: Seconds to wait before each further attempt of a delivery; empty: one attempt.
        webhook_timeout_seconds: Time for one attempt, all in.
        webhook_min_interval_seconds: Time between two `details` calls of one subscription.
        webhook_queue: Queue of the deliveries; None is Celery's default queue.
        public_url: Base of the default `task_href`; None makes none.
        web_token: Who shows it may use `taskstate serve`; None lets everybody on this machine.
        web_files_root: Folder below which `taskstate serve` sends local output files; None sends none.
    """

    database_url: str = _setting("sqlite:///taskstate.db", checked_text, secret=True)
    test_database_url: str | None = _setting("sqlite://", optional_text, secret=True)
    error_status: str = _setting("ERROR", error_word)
    wire_error_status: str = _setting("FAILURE", error_word)
    heartbeat_seconds: float = _setting(HEARTBEAT_SECONDS, seconds)
    lost_after_seconds: float = _setting(LEASE_SECONDS, seconds)
    flush_interval_seconds: float = _setting(0.5, seconds)
    log_column_bytes: int = _setting(60 * 1024, count)
    capture_log_level: int | None = _setting(None, log_level)
    track: tuple[str, ...] = _setting((), task_names)
    db_id_finishes: bool = _setting(True, switch)
    canvas_progress: bool = _setting(True, switch)
    hold_seconds: float = _setting(HOLD_SECONDS, seconds)
    keep_facts_seconds: float = _setting(600.0, seconds)
    publish_deadline_seconds: float = _setting(7 * DAY, seconds)
    missing_after_seconds: float = _setting(300.0, seconds)
    prune_after_seconds: float | None = _setting(None, optional_seconds)
    max_redeliveries: int = _setting(5, count)
    webhooks: bool = _setting(True, switch)
    webhook_secrets: tuple[str, ...] = _setting((), secrets_of, secret=True)
    webhook_allowed_networks: tuple[str, ...] = _setting((), allowed_networks)
    webhook_retry_schedule: tuple[float, ...] = _setting(
        (5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 50400.0, 72000.0, 86400.0), schedule
    )
    webhook_timeout_seconds: float = _setting(15.0, call_seconds)
    webhook_min_interval_seconds: float = _setting(2.0, seconds_or_zero)
    webhook_queue: str | None = _setting(None, optional_text)
    public_url: str | None = _setting(None, optional_text)
    web_token: str | None = _setting(None, optional_text, secret=True)
    web_files_root: str | None = _setting(None, optional_text)


FIELDS: Final = {field.name: field for field in dataclasses.fields(Settings)}


def setting_names() -> tuple[str, ...]:
    """Return the names of all settings, without their prefix."""
    return tuple(FIELDS)
