"""The settings: names, defaults, units, and where they are read from. Knows neither Celery nor a database."""

from __future__ import annotations

import dataclasses
import difflib
import json
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from .errors import SettingsError
from .states import ERROR_WORDS
from .webhook_values import AllowedNetworks, check_secret

logger = logging.getLogger(__name__)

#: Prefix of every setting in Celery's configuration.
PREFIX: Final = "taskstate_"

#: Prefix of every setting in the environment.
ENVIRONMENT_PREFIX: Final = "TASKSTATE_"

#: The name space of Celery's configuration in the usual way of Django.
_USUAL_NAMESPACE: Final = "CELERY"

DAY: Final = 86400.0

#: The longest time that a setting may name, in seconds; moments further away cannot be stored.
_LONGEST_SECONDS: Final = 3650 * DAY

#: The longest time for one call, in seconds: several of them must fit into a run of the deliveries.
_LONGEST_CALL_SECONDS: Final = 300.0

#: How many attempts a schedule may hold.
_MOST_ATTEMPTS: Final = 100


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a text that is not empty is needed")
    return value.strip()


def _optional_text(value: object) -> str | None:
    return None if value is None or value == "" else _text(value)


def _error_word(value: object) -> str:
    word = _text(value)
    if word not in ERROR_WORDS:
        raise ValueError(f"one of {', '.join(sorted(ERROR_WORDS))} is needed")
    return word


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError("a number is needed")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("a finite number is needed")
    return number


def _seconds(value: object) -> float:
    number = _number(value)
    if not 0 < number <= _LONGEST_SECONDS:
        raise ValueError(f"a number of seconds above 0 is needed, at most {_LONGEST_SECONDS:.0f}")
    return number


def _call_seconds(value: object) -> float:
    number = _number(value)
    if not 0 < number <= _LONGEST_CALL_SECONDS:
        raise ValueError(f"a number of seconds above 0 is needed, at most {_LONGEST_CALL_SECONDS:.0f}")
    return number


def _optional_seconds(value: object) -> float | None:
    return None if value is None or value == "" else _seconds(value)


def _seconds_or_zero(value: object) -> float:
    number = _number(value)
    if not 0 <= number <= _LONGEST_SECONDS:
        raise ValueError(f"a number of seconds, 0 or more, is needed, at most {_LONGEST_SECONDS:.0f}")
    return number


def _count(value: object) -> int:
    number = _number(value)
    if number < 1 or number != int(number):
        raise ValueError("a whole number, 1 or more, is needed")
    return int(number)


def _switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in {"1", "true", "yes", "on"}:
        return True
    if isinstance(value, str) and value.lower() in {"0", "false", "no", "off"}:
        return False
    raise ValueError("true or false is needed")


def _items(value: object) -> list[Any]:
    if isinstance(value, str):
        text = value.strip()
        return list(json.loads(text)) if text.startswith("[") else [part.strip() for part in text.split(",") if part]
    if isinstance(value, Iterable) and not isinstance(value, (bytes, bytearray, Mapping)):
        return list(value)
    raise ValueError("a list is needed")


def _texts(value: object) -> tuple[str, ...]:
    return tuple(_text(item) for item in _items(value))


def _webhook_secrets(value: object) -> tuple[str, ...]:
    return tuple(check_secret(text) for text in _texts(value))


def _allowed_networks(value: object) -> tuple[str, ...]:
    texts = _texts(value)
    AllowedNetworks.parse(texts)
    return texts


def _schedule(value: object) -> tuple[float, ...]:
    if isinstance(value, (set, frozenset)):
        raise ValueError("a list is needed: a set has no order")
    waits = tuple(_seconds_or_zero(item) for item in _items(value))
    if len(waits) > _MOST_ATTEMPTS:
        raise ValueError(f"it has {len(waits)} waits, {_MOST_ATTEMPTS} are enough")
    return waits


def _log_level(value: object) -> int | None:
    if value is None or value == "":
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    level = logging.getLevelNamesMapping().get(str(value).upper())
    if level is None:
        raise ValueError("a level of the logging module, such as 'INFO', is needed")
    return level


def _setting(default: Any, parse: Callable[[object], Any], *, secret: bool = False) -> Any:
    return dataclasses.field(default=default, repr=not secret, metadata={"parse": parse})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of one `TaskState`, checked. Lives as long as the `TaskState` that read it.

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
        canvas_progress: A task of several executions shows how many of them are done; False shows what the last of
            them reported.
        hold_seconds: A submission that was not heard of for so long counts as dead.
        keep_facts_seconds: How long a process keeps in memory what it cannot write while the database is away.
        publish_deadline_seconds: A message not begun so long after its publication or eta counts as lost.
        missing_after_seconds: A message not begun so long after its publication is looked for in the broker.
        prune_after_seconds: Tasks that finished so long ago are removed; None removes none by itself.
        max_redeliveries: How often the broker may deliver one message again after it lost its worker.
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

    database_url: str = _setting("sqlite:///taskstate.db", _text, secret=True)
    test_database_url: str | None = _setting("sqlite://", _optional_text, secret=True)
    error_status: str = _setting("ERROR", _error_word)
    wire_error_status: str = _setting("FAILURE", _error_word)
    heartbeat_seconds: float = _setting(10.0, _seconds)
    lost_after_seconds: float = _setting(30.0, _seconds)
    flush_interval_seconds: float = _setting(0.5, _seconds)
    log_column_bytes: int = _setting(60 * 1024, _count)
    capture_log_level: int | None = _setting(None, _log_level)
    canvas_progress: bool = _setting(True, _switch)
    hold_seconds: float = _setting(35.0, _seconds)
    keep_facts_seconds: float = _setting(600.0, _seconds)
    publish_deadline_seconds: float = _setting(7 * DAY, _seconds)
    missing_after_seconds: float = _setting(300.0, _seconds)
    prune_after_seconds: float | None = _setting(None, _optional_seconds)
    max_redeliveries: int = _setting(5, _count)
    webhook_secrets: tuple[str, ...] = _setting((), _webhook_secrets, secret=True)
    webhook_allowed_networks: tuple[str, ...] = _setting((), _allowed_networks)
    webhook_retry_schedule: tuple[float, ...] = _setting(
        (5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 50400.0, 72000.0, 86400.0), _schedule
    )
    webhook_timeout_seconds: float = _setting(15.0, _call_seconds)
    webhook_min_interval_seconds: float = _setting(2.0, _seconds_or_zero)
    webhook_queue: str | None = _setting(None, _optional_text)
    public_url: str | None = _setting(None, _optional_text)
    web_token: str | None = _setting(None, _optional_text, secret=True)
    web_files_root: str | None = _setting(None, _optional_text)


_FIELDS: Final = {field.name: field for field in dataclasses.fields(Settings)}


def setting_names() -> tuple[str, ...]:
    """Return the names of all settings, without their prefix."""
    return tuple(_FIELDS)


def configured_name(key: str, namespace: str | None = None) -> str | None:
    """Return which setting a name in Celery's configuration means, known or not, without the prefix; None for others.

    `config_from_object(…, namespace="CELERY")`, the usual way of Django, leaves the names of the settings module as
    they are, and Celery looks for its own ones under both names (celery 5.5 to 5.7, `ConfigurationView`). So do we, in
    lower and upper case, and for `CELERY_` also where no name space was given.

    Args:
        key: The name, such as `taskstate_public_url` or `CELERY_TASKSTATE_PUBLIC_URL`.
        namespace: `app.namespace`.
    """
    name = key.lower()
    for space in (namespace or _USUAL_NAMESPACE, _USUAL_NAMESPACE):
        name = name.removeprefix(f"{space.lower().rstrip('_')}_")
    return name.removeprefix(PREFIX) if name.startswith(PREFIX) else None


def read_settings(
    keywords: Mapping[str, object],
    configuration: Mapping[str, object],
    environment: Mapping[str, str] | None = None,
    namespace: str | None = None,
) -> Settings:
    """Gather the settings; a keyword wins over the configuration, which wins over the environment.

    Args:
        keywords: Settings without prefix, as passed to `TaskState`.
        configuration: Celery's configuration; only those names are looked at that `configured_name` knows. Of two
            names of one setting the later wins.
        environment: Names and texts such as `os.environ`; `TASKSTATE_X_FILE` names a file that holds the value
            of `TASKSTATE_X` (for secrets). Unknown names are named in a warning. None reads no environment.
        namespace: The name space of Celery's configuration, if it has one.

    Returns:
        The checked settings.

    Raises:
        SettingsError: If a keyword or a configured `taskstate_` name is unknown, a value makes no sense, or the
            file of a `_FILE` name cannot be read. A secret value is not shown.
    """
    found: dict[str, tuple[str, object]] = {}
    for name, value in (environment or {}).items():
        found.update(_from_environment(name, value))
    _warn_of_unknown(environment or {})
    for key, configured in configuration.items():
        setting = configured_name(key, namespace)
        if setting is not None:
            found[_known(setting, key)] = (key, configured)
    for key, given in keywords.items():
        found[_known(key, key)] = (key, given)
    settings = Settings(**{name: _parsed(name, label, value) for name, (label, value) in found.items()})
    if settings.lost_after_seconds < 2 * settings.heartbeat_seconds:
        raise SettingsError(
            f"taskstate_lost_after_seconds is {settings.lost_after_seconds:g}, taskstate_heartbeat_seconds "
            f"{settings.heartbeat_seconds:g}: healthy tasks would look lost; make it at least twice the heartbeat"
        )
    return settings


def _from_environment(name: str, value: str) -> dict[str, tuple[str, object]]:
    setting = name.removeprefix(ENVIRONMENT_PREFIX).lower()
    if not name.startswith(ENVIRONMENT_PREFIX):
        return {}
    if setting in _FIELDS:
        return {setting: (name, value)}
    if setting.endswith("_file") and setting.removesuffix("_file") in _FIELDS:
        try:
            return {setting.removesuffix("_file"): (name, Path(value).read_text(encoding="utf-8").strip())}
        except OSError as exc:
            raise SettingsError(f"{name} names a file that cannot be read: {exc}") from exc
    return {}


def _warn_of_unknown(environment: Mapping[str, str]) -> None:
    for name in sorted(environment):
        setting = name.removeprefix(ENVIRONMENT_PREFIX).lower()
        if name.startswith(ENVIRONMENT_PREFIX) and not {setting, setting.removesuffix("_file")} & _FIELDS.keys():
            # Without the prefix, by which all are similar.
            similar = difflib.get_close_matches(setting, _FIELDS, n=1)
            hint = f"; is {ENVIRONMENT_PREFIX}{similar[0].upper()} meant?" if similar else ""
            logger.warning("%s in the environment names no setting%s", name, hint)


def _known(setting: str, label: str) -> str:
    if setting not in _FIELDS:
        raise SettingsError(f"unknown setting {label!r}; known are {', '.join(PREFIX + n for n in _FIELDS)}")
    return setting


def _parsed(setting: str, label: str, value: object) -> Any:
    field = _FIELDS[setting]
    try:
        return field.metadata["parse"](value)
    except (ValueError, TypeError, OverflowError) as exc:
        shown = repr(value) if field.repr else "its value (not shown)"
        raise SettingsError(f"setting {label}: {shown} makes no sense: {exc}") from None
