"""Column types of the plugin runner's tables: what its rows hold, read and written without loss."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ColumnElement, Dialect, Text, TypeDecorator, cast, type_coerce
from sqlalchemy.types import TypeEngine

from ...json.merge import to_plain
from ...states import with_error_word
from ..dialects import runner_moment_type
from ..sessions.current import current_settings
from .base import UtcTime
from .types import FollowedText


class NullAs(TypeDecorator[Any]):
    """A column that may be NULL in the database of a plugin runner, whose models do not know of it.

    Args:
        inner: The type of the column.
        default: What NULL reads as, and what None is written as.
    """

    impl = Text
    cache_ok = True
    #: So that `column.is_(False)` says IS false: PostgreSQL takes no bound value there.
    coerce_to_is_types = (type(None), bool)

    def __init__(self, inner: TypeEngine[Any], default: Any) -> None:
        super().__init__()
        self.inner = inner
        self.default = default
        self.impl = inner  # type: ignore[assignment]  # the class says which class, an instance which instance

    def copy(self, **kwargs: Any) -> NullAs:
        """Return a type of the same kind."""
        return NullAs(self.inner, self.default)

    def coerce_compared_value(self, op: Any, value: Any) -> Any:
        """Compare as the column inside does."""
        if isinstance(self.inner, FollowedText):
            return NullAs(self.inner.coerce_compared_value(op, value), self.default)
        return self

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """Write None as the default."""
        return self.default if value is None else value

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """Read NULL as the default."""
        return self.default if value is None else value


class RunnerTime(UtcTime):
    """A moment in a column of the plugin runner, which is a TIMESTAMP on every database."""

    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        """Keep the runner's type; on MySQL one of whole seconds that is bound and read in the session's zone."""
        return runner_moment_type(dialect.name)


class RunnerTimeOr(RunnerTime):
    """A moment that may be NULL.

    Args:
        default: What NULL reads as, aware UTC.
    """

    cache_ok = True

    def __init__(self, default: datetime) -> None:
        super().__init__()
        self.default = default

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return aware UTC."""
        return self.default if value is None else super().process_result_value(value, dialect)


class StatusWord(TypeDecorator[str]):
    """The status of a task. Both words for a failure are written and read as the one that is set.

    The setting is `taskstate_error_status`; rows of existing runners hold FAILURE. Another word passes unchanged.
    """

    impl = Text
    cache_ok = True

    def __init__(self, inner: TypeEngine[Any]) -> None:
        super().__init__()
        self.inner = inner
        self.impl = inner  # type: ignore[assignment]  # the class says which class, an instance which instance

    def copy(self, **kwargs: Any) -> StatusWord:
        """Return a type of the same kind."""
        return StatusWord(self.inner)

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Write the word that is set."""
        return with_error_word(value, current_settings().error_status)

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """Read the word that is set."""
        return with_error_word(value, current_settings().error_status)


class JsonDocument(TypeDecorator[Any]):
    """A JSON value of any kind, also at the top. SQL NULL reads as an empty dict, JSON null as None."""

    impl = JSON
    cache_ok = True
    #: None is written as JSON null, also in an INSERT of the unit of work, which would leave the column out.
    should_evaluate_none = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """Write tracked containers as plain ones."""
        return to_plain(value)

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any] | None:
        """Write as the database's own JSON type does, but for a number alone on SQLite.

        A column declared JSON has numeric affinity there (SQLite, "Datatypes"), which turns the text `1.0` into
        an integer and one of many digits into a float; bytes stay as they are.
        """
        write = super().bind_processor(dialect)
        if dialect.name != "sqlite" or write is None:
            return write

        def bind(value: Any) -> Any:
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                return json.dumps(value, allow_nan=False).encode()
            return write(value)

        return bind

    def column_expression(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Read the text itself: drivers give None for SQL NULL and for JSON null alike."""
        return type_coerce(cast(column, Text), self)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        """Read the text that `column_expression` asks for."""
        return _read_document


def _read_document(value: Any) -> Any:
    if value is None:
        return {}
    if isinstance(value, (str, bytes)):
        # Existing rows on SQLite and MariaDB may hold NaN, which no JSON document can be written with again.
        return json.loads(value, parse_constant=_no_number)
    return value


def _no_number(constant: str) -> None:
    return None
