"""How an error reads in a task's log: its real cause, in words that hold no SQL and no value of a statement."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Final

from sqlalchemy.exc import PendingRollbackError, StatementError

from .texts import LONGEST_TEXT, cut

#: How many exceptions of one failure are described at most, and how deep they may be nested.
_MOST_TOLD: Final = 50
_DEEPEST: Final = 10

#: With what SQLAlchemy begins the text of an error of the database, and what follows the driver's words (2.0, 2.1).
_DRIVER: Final = re.compile(r"\(\w+(?:\.\w+)+\) ")
_STATEMENT: Final = "[SQL: "
_BACKGROUND: Final = "(Background on this error at: "

#: So far before its statement the words of a driver may begin.
_LONGEST_DRIVER_TEXT: Final = 10_000

_LEFT_OUT: Final = "(a database error; its text is left out here)"


def message_of(exception: BaseException) -> str:
    """Return what an error says: its text, its notes, what its group holds, and the causes that it was raised from.

    Args:
        exception: Any error. One whose text raises says so.

    Returns:
        A text of at most about `LONGEST_TEXT` characters, without the name of the error's own class. Notes, members of
        a group and causes have lines of their own.
    """
    text = "\n".join(_Teller().lines(exception))
    return cut(text.removeprefix(type(exception).__name__).removeprefix(": "))


def summary_of(exception: BaseException) -> str:
    """Return class and text of an error, and the rest as `message_of` does."""
    return cut("\n".join(_Teller().lines(exception)))


class _Teller:
    """Goes through the exceptions that an error consists of, each once."""

    def __init__(self) -> None:
        self._told: set[int] = set()

    def lines(self, exception: BaseException, depth: int = 0) -> Iterator[str]:
        self._told.add(id(exception))
        text = _text_of(exception)
        yield f"{type(exception).__name__}: {text}" if text else type(exception).__name__
        for note in _notes_of(exception):
            yield f"note: {note}"
        if depth >= _DEEPEST:
            return
        if isinstance(exception, BaseExceptionGroup):
            yield from self._members(exception, depth)
        cause = exception.__cause__
        if cause is not None and id(cause) not in self._told and not is_of_database(exception):
            first, *rest = self.lines(cause, depth + 1)
            yield f"caused by {first}"
            yield from rest

    def _members(self, group: BaseExceptionGroup[BaseException], depth: int) -> Iterator[str]:
        for position, member in enumerate(group.exceptions):
            if len(self._told) >= _MOST_TOLD:
                yield f"- [{len(group.exceptions) - position:,} more left out]"
                return
            if id(member) not in self._told:
                first, *rest = self.lines(member, depth + 1)
                yield f"- {first}"
                yield from (f"  {line}" for line in rest)


def _text_of(exception: BaseException) -> str:
    if is_of_database(exception):
        # SQLAlchemy's text holds the statement and its values, the driver's own often some of them.
        cause = getattr(exception, "orig", None)
        named = f" ({type(cause).__name__})" if cause is not None else ""
        return f"the database refused a statement{named}; the worker's log has its text"
    try:
        text = str(exception)
    except Exception as exc:
        return f"(its text cannot be had: {type(exc).__name__})"
    return cut(without_statements(text), LONGEST_TEXT // 2)


def _notes_of(exception: BaseException) -> Iterator[str]:
    notes = getattr(exception, "__notes__", None)
    for note in notes[:_MOST_TOLD] if isinstance(notes, list) else ():
        if isinstance(note, str):
            yield cut(without_statements(note), LONGEST_TEXT // 4)


def is_of_database(exception: BaseException) -> bool:
    """Tell whether an error is one of SQLAlchemy that shows a statement, or one of a database driver (PEP 249)."""
    if isinstance(exception, (StatementError, PendingRollbackError)):
        return True
    for kind in type(exception).__mro__:
        module = sys.modules.get(kind.__module__.partition(".")[0])
        error = getattr(module, "Error", None) if hasattr(module, "apilevel") else None
        if isinstance(error, type) and issubclass(kind, error):
            return True
    return False


def without_statements(text: str) -> str:
    """Return a text without the texts of SQLAlchemy's errors that it quotes, from the driver's words to their end."""
    parts, done = [], 0
    while (found := text.find(_STATEMENT, done)) >= 0:
        driver = _DRIVER.search(text, max(done, found - _LONGEST_DRIVER_TEXT), found)
        parts += [text[done : driver.start() if driver is not None else found], _LEFT_OUT]
        background = text.find(_BACKGROUND, found)
        end = text.find(")", background) if background >= 0 else -1
        done = end + 1 if end >= 0 else len(text)
    return "".join([*parts, text[done:]]) if parts else text
