"""Column types for which no value is a reason to refuse a row, or which refuse it themselves, in our words.

They work wherever a value is bound: a flush, an ORM statement, a Core statement, a comparison.
"""

from __future__ import annotations

import math
from typing import Any, Final

from sqlalchemy import ColumnElement, Dialect, Integer, Text, TypeDecorator
from sqlalchemy.exc import DontWrapMixin
from sqlalchemy.types import TypeEngine

from ... import texts as texts_module
from ...errors import TextCharacterError

#: What an INTEGER column of PostgreSQL and MySQL holds.
LARGEST_INTEGER: Final = 2**31 - 1


class _BoundTextError(TextCharacterError, DontWrapMixin):
    """A `TextCharacterError` that SQLAlchemy lets through; it would wrap any other into an error that shows the SQL."""


class ReadText(TypeDecorator[str]):
    """A text that people read: what no column can hold is replaced.

    Args:
        inner: The type of the column.
        cuts: Whether a longer text is cut to the length of the column, rather than refused by the database.
    """

    impl = Text
    cache_ok = True

    def __init__(self, inner: TypeEngine[Any], *, cuts: bool = False) -> None:
        super().__init__()
        self.inner = inner
        self.cuts = cuts
        self.impl = inner  # type: ignore[assignment]  # the class says which class, an instance which instance
        self._longest: int | None = getattr(inner, "length", None) if cuts else None

    def copy(self, **kwargs: Any) -> ReadText:
        """Return a type of the same kind."""
        return ReadText(self.inner, cuts=self.cuts)

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """Write what a column can hold."""
        return texts_module.clean(value)[: self._longest] if isinstance(value, str) else value


class FollowedText(TypeDecorator[str]):
    """A text that machines follow (an address, an id, a tag, a path): one that no column can hold is refused.

    A comparison with such a text is allowed, and finds nothing.

    Args:
        inner: The type of the column.
        member: What an error calls it, such as `Step.href`.
    """

    impl = Text
    cache_ok = True

    def __init__(self, inner: TypeEngine[Any], member: str) -> None:
        super().__init__()
        self.inner = inner
        self.member = member
        self.impl = inner  # type: ignore[assignment]  # the class says which class, an instance which instance

    def copy(self, **kwargs: Any) -> FollowedText:
        """Return a type of the same kind."""
        return FollowedText(self.inner, self.member)

    def coerce_compared_value(self, op: Any, value: Any) -> Any:
        """Compare with a text that a column could hold."""
        return ReadText(self.inner)

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """Write the text as it is, or refuse it."""
        if isinstance(value, str):
            try:
                texts_module.refuse_unstorable(value, self.member)
            except TextCharacterError as exc:
                raise _BoundTextError(exc.member, exc.character, exc.position) from None
        return value


class Count(TypeDecorator[int]):
    """A whole number of Celery's, of which a message may carry any: one beyond the column becomes the nearest."""

    impl = Integer
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """Write the nearest number that a column can hold."""
        if value is None or (type(value) is int and -LARGEST_INTEGER <= value <= LARGEST_INTEGER):
            return value
        return nearest_count(value)


def bare_type(column: ColumnElement[Any]) -> TypeEngine[Any]:
    """Return the database's own type of a column, for a value that is already what the column holds.

    The types above look at each value that is bound or read, which the statements of every execution need not pay for.
    """
    found: TypeEngine[Any] = column.type
    while isinstance(found, TypeDecorator):
        found = found.impl_instance
    return found


def nearest_count(value: object) -> int | None:
    """Return the nearest whole number that a column can hold; None for what is no number."""
    try:
        number = float(value)  # type: ignore[arg-type]  # what it does not take raises
    except OverflowError:
        number = math.inf if value > 0 else -math.inf  # type: ignore[operator]  # only an int is that large
    except (TypeError, ValueError):
        return None
    if math.isnan(number):
        return None
    return int(min(max(number, -LARGEST_INTEGER), LARGEST_INTEGER))
