"""What all tables share: metadata, names of constraints, types, lengths."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from sqlalchemy import Dialect, MetaData, String, TypeDecorator
from sqlalchemy.types import TIMESTAMP

from ...clock import as_utc
from ..dialects import LONG_TEXT_TYPE, kind_of, moment_type
from .types import ReadText

#: Constraint names of the plugin runner, which ours follow.
NAMING_CONVENTION: Final = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "ix": "ix_%(table_name)s_%(column_0_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
}


metadata = MetaData(naming_convention=NAMING_CONVENTION)


#: Longest Celery id and name that are kept; Celery's own result table has 155 and 255.
ID_LENGTH: Final = 155


NAME_LENGTH: Final = 255


class UtcTime(TypeDecorator[datetime]):
    """A moment: aware UTC in Python on every database; a naive value counts as UTC.

    One that no column can hold becomes the nearest.
    """

    impl = TIMESTAMP(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        """Choose the column type; the plugin runner's columns have one of their own."""
        return moment_type(dialect.name)

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn any aware time into UTC; databases without time zones get it naive."""
        if value is None:
            return None
        moment = as_utc(value)
        return moment if kind_of(dialect.name).time_zones else moment.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return aware UTC."""
        if value is None:
            return None
        return as_utc(value)


LONG_TEXT = ReadText(LONG_TEXT_TYPE)


#: Ids and names as Celery has them: whatever they hold, that a task ran must not be lost.
ID = ReadText(String(ID_LENGTH))


NAME = ReadText(String(NAME_LENGTH), cuts=True)
