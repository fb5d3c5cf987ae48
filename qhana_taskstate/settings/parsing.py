"""How the value of a setting is read and checked."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

from ..states import ERROR_WORDS
from .webhook_values import AllowedNetworks, check_secret

logger = logging.getLogger(__name__)


DAY: Final = 86400.0


#: The longest time that a setting may name, in seconds; moments further away cannot be stored.
_LONGEST_SECONDS: Final = 3650 * DAY


#: The longest time for one call, in seconds: several of them must fit into a run of the deliveries.
_LONGEST_CALL_SECONDS: Final = 300.0


#: How many attempts a schedule may hold.
_MOST_ATTEMPTS: Final = 100


def checked_text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a text that is not empty is needed")
    return value.strip()


def optional_text(value: object) -> str | None:
    return None if value is None or value == "" else checked_text(value)


def error_word(value: object) -> str:
    word = checked_text(value)
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


def seconds(value: object) -> float:
    number = _number(value)
    if not 0 < number <= _LONGEST_SECONDS:
        raise ValueError(f"a number of seconds above 0 is needed, at most {_LONGEST_SECONDS:.0f}")
    return number


def call_seconds(value: object) -> float:
    number = _number(value)
    if not 0 < number <= _LONGEST_CALL_SECONDS:
        raise ValueError(f"a number of seconds above 0 is needed, at most {_LONGEST_CALL_SECONDS:.0f}")
    return number


def optional_seconds(value: object) -> float | None:
    return None if value is None or value == "" else seconds(value)


def seconds_or_zero(value: object) -> float:
    number = _number(value)
    if not 0 <= number <= _LONGEST_SECONDS:
        raise ValueError(f"a number of seconds, 0 or more, is needed, at most {_LONGEST_SECONDS:.0f}")
    return number


def count(value: object) -> int:
    number = _number(value)
    if number < 1 or number != int(number):
        raise ValueError("a whole number, 1 or more, is needed")
    return int(number)


def switch(value: object) -> bool:
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
    return tuple(checked_text(item) for item in _items(value))


def task_names(value: object) -> tuple[str, ...]:
    """Read which tasks are tracked without the decorator: none, all, or names with wildcards."""
    if value is None or (isinstance(value, str) and value.strip().lower() in {"", "none"}):
        return ()
    if isinstance(value, str) and value.strip().lower() == "all":
        return ("*",)
    names = _texts(value)
    for name in names:
        if name in {"none", "!"} or name.startswith("!!"):
            raise ValueError(f"{name!r} is no name of tasks; 'none', 'all', or names such as 'reports.*' are needed")
    return tuple("*" if name == "all" else name for name in names)


def secrets_of(value: object) -> tuple[str, ...]:
    return tuple(check_secret(text) for text in _texts(value))


def allowed_networks(value: object) -> tuple[str, ...]:
    texts = _texts(value)
    AllowedNetworks.parse(texts)
    return texts


def schedule(value: object) -> tuple[float, ...]:
    if isinstance(value, (set, frozenset)):
        raise ValueError("a list is needed: a set has no order")
    waits = tuple(seconds_or_zero(item) for item in _items(value))
    if len(waits) > _MOST_ATTEMPTS:
        raise ValueError(f"it has {len(waits)} waits, {_MOST_ATTEMPTS} are enough")
    return waits


def log_level(value: object) -> int | None:
    if value is None or value == "":
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    level = logging.getLevelNamesMapping().get(str(value).upper())
    if level is None:
        raise ValueError("a level of the logging module, such as 'INFO', is needed")
    return level
