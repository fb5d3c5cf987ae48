"""The types of the settings as keywords of `TaskState`, for type checkers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict


class SettingKeywords(TypedDict, total=False):
    """One key for each field of `Settings`, with what may be given for it."""

    database_url: str
    test_database_url: str | None
    error_status: str
    wire_error_status: str
    heartbeat_seconds: float
    lost_after_seconds: float
    flush_interval_seconds: float
    log_column_bytes: int
    capture_log_level: int | str | None
    track: str | Iterable[str] | None
    db_id_finishes: bool
    canvas_progress: bool
    hold_seconds: float
    keep_facts_seconds: float
    publish_deadline_seconds: float
    missing_after_seconds: float
    prune_after_seconds: float | None
    max_redeliveries: int
    webhooks: bool
    webhook_secrets: Iterable[str]
    webhook_allowed_networks: Iterable[str]
    webhook_retry_schedule: Iterable[float]
    webhook_timeout_seconds: float
    webhook_min_interval_seconds: float
    webhook_queue: str | None
    public_url: str | None
    web_token: str | None
    web_files_root: str | None
