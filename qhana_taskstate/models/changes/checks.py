"""What a mapped attribute accepts, checked where it is assigned."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, TypeAlias, cast

from sqlalchemy import Connection, Float, String, event
from sqlalchemy.orm import Mapper

from ... import texts as texts_module
from ...clock import as_utc
from ...database.dialects import kind_of
from ...database.tables.columns import NullAs, RunnerTime, StatusWord
from ...database.tables.types import FollowedText, ReadText
from ...errors import ProgressError, TextTooLongError

#: Takes target, value, old value and initiator of a change; returns the value to hold.
_Check: TypeAlias = Callable[[Any, Any, Any, Any], Any]


def listen(mappers: Iterable[Mapper[Any]]) -> None:
    """Check from now on what is assigned to the columns of mapped classes.

    A text must not be longer than its column; what no database takes is replaced in it, or refused. A number must be
    finite, a moment becomes aware UTC, and None becomes the default of a column that reads NULL as its default.
    """
    for mapper in mappers:
        for attribute in mapper.column_attrs:
            for check in _checks(attribute.columns[0].type, f"{mapper.class_.__name__}.{attribute.key}"):
                event.listen(getattr(mapper.class_, attribute.key), "set", check, retval=True)


def _checks(column_type: Any, name: str) -> Iterable[_Check]:
    inner = column_type.inner if isinstance(column_type, (NullAs, StatusWord)) else column_type
    if isinstance(column_type, NullAs):
        yield _filling_in(column_type.default)
    if isinstance(inner, ReadText):
        inner = inner.inner
        yield _clean
    elif isinstance(inner, FollowedText):
        inner = inner.inner
        yield _refusing(name)
    if isinstance(inner, String) and inner.length is not None:
        yield _limiting(name, inner.length)
    if isinstance(column_type, RunnerTime):
        yield _moment
    if isinstance(inner, Float):
        yield _finite


def _filling_in(default: object) -> _Check:
    def check(target: Any, value: Any, old: Any, initiator: Any) -> Any:
        return default if value is None else value

    return check


def _clean(target: Any, value: Any, old: Any, initiator: Any) -> Any:
    return texts_module.clean(value) if isinstance(value, str) else value


def _refusing(name: str) -> _Check:
    def check(target: Any, value: Any, old: Any, initiator: Any) -> Any:
        return texts_module.refuse_unstorable(value, name) if isinstance(value, str) else value

    return check


def _limiting(name: str, limit: int) -> _Check:
    def check(target: Any, value: Any, old: Any, initiator: Any) -> Any:
        if isinstance(value, str) and len(value) > limit:
            raise TextTooLongError(f"{name} of {len(value)} characters is too long; its column holds {limit}")
        return value

    return check


def _moment(target: Any, value: Any, old: Any, initiator: Any) -> Any:
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise TypeError(f"{initiator.key} is a datetime, not {type(value).__name__} {value!r}")
    return as_utc(value)


def _finite(target: Any, value: Any, old: Any, initiator: Any) -> Any:
    if value is None:
        return None
    number = math.nan
    if not isinstance(value, (str, bytes, bool)):
        try:
            number = float(cast(Any, value))
        except (TypeError, ValueError, OverflowError):
            number = math.nan
    if not math.isfinite(number):
        raise ProgressError(f"{initiator.key} {value!r} is no finite number")
    return number


def check_bytes(connection: Connection, target: Any) -> None:
    """Check at a flush the texts whose columns have a limit on some databases alone.

    Raises:
        TextTooLongError: Names the attribute.
    """
    most = kind_of(connection.dialect.name).text_bytes
    if most is None:
        return
    for key in ("parameters", "file_storage_data"):
        value = target.__dict__.get(key)
        if isinstance(value, str) and len(value) * 4 > most and len(value.encode()) > most:
            raise TextTooLongError(
                f"{type(target).__name__}.{key} of {len(value.encode())} bytes is too long; "
                f"its column holds {most} on this database"
            )
