"""Where settings are read from: keywords, Celery's configuration, the environment."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ..errors import SettingsError
from .lease_time import check_lease_time
from .values import ENVIRONMENT_PREFIX, FIELDS, PREFIX, Settings

logger = logging.getLogger(__name__)


#: The name space of Celery's configuration in the usual way of Django.
_USUAL_NAMESPACE: Final = "CELERY"

#: What begins so is for `qhana_taskstate.testing`, and no setting.
_TESTING_PREFIX: Final = f"{ENVIRONMENT_PREFIX}TESTING_"


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
    check_lease_time(settings.heartbeat_seconds, settings.lost_after_seconds)
    return settings


def _from_environment(name: str, value: str) -> dict[str, tuple[str, object]]:
    setting = name.removeprefix(ENVIRONMENT_PREFIX).lower()
    if not name.startswith(ENVIRONMENT_PREFIX):
        return {}
    if setting in FIELDS:
        return {setting: (name, value)}
    if setting.endswith("_file") and setting.removesuffix("_file") in FIELDS:
        try:
            return {setting.removesuffix("_file"): (name, Path(value).read_text(encoding="utf-8").strip())}
        except OSError as exc:
            raise SettingsError(f"{name} names a file that cannot be read: {exc}") from exc
    return {}


def _warn_of_unknown(environment: Mapping[str, str]) -> None:
    for name in sorted(environment):
        if name.startswith(_TESTING_PREFIX):
            continue
        setting = name.removeprefix(ENVIRONMENT_PREFIX).lower()
        if name.startswith(ENVIRONMENT_PREFIX) and not {setting, setting.removesuffix("_file")} & FIELDS.keys():
            # Without the prefix, by which all are similar.
            similar = difflib.get_close_matches(setting, FIELDS, n=1)
            hint = f"; is {ENVIRONMENT_PREFIX}{similar[0].upper()} meant?" if similar else ""
            logger.warning("%s in the environment names no setting%s", name, hint)


def _known(setting: str, label: str) -> str:
    if setting not in FIELDS:
        raise SettingsError(f"unknown setting {label!r}; known are {', '.join(PREFIX + n for n in FIELDS)}")
    return setting


def _parsed(setting: str, label: str, value: object) -> Any:
    field = FIELDS[setting]
    try:
        return field.metadata["parse"](value)
    except (ValueError, TypeError, OverflowError) as exc:
        shown = repr(value) if field.repr else "its value (not shown)"
        raise SettingsError(f"setting {label}: {shown} makes no sense: {exc}") from None
