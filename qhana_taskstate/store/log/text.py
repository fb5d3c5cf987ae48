"""The text of log entries: how it is cleaned, joined and cut. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ... import texts
from ...database.dialects import kind_of
from ...database.sessions.current import current_settings
from ...failures import without_statements


class Entry(NamedTuple):
    """One entry of a log.

    Attributes:
        text: One or several lines.
        glued: Continues the text before it; otherwise it starts a new line.
    """

    text: str
    glued: bool = False


def clean(text: str) -> str:
    """Make a text one that a log takes.

    Characters that a column cannot hold are replaced, lines longer than `texts.LONGEST_TEXT` are cut in the middle, and
    the text of a database error that SQLAlchemy made is left out: it shows the statement and its values.

    Raises:
        TypeError: If it is no text.
    """
    if not isinstance(text, str):
        raise TypeError(f"a log is text, not {type(text).__name__} {text!r}; use str()")
    return texts.cut_lines(texts.clean(without_statements(text)))


def join(entries: Iterable[Entry], before: str = "") -> str:
    """Put entries below each other.

    Args:
        entries: Oldest first.
        before: The log that they follow.
    """
    parts = [before]
    empty = not before
    for entry in entries:
        if not (entry.glued or empty):
            parts.append("\n")
        parts.append(entry.text)
        empty = empty and not entry.text
    return "".join(parts)


def tail(text: str, limit: int) -> str:
    """Return the newest part of a text: at most `limit` bytes of UTF-8, from the beginning of a line if one is near."""
    encoded = text.encode()
    if len(encoded) <= limit:
        return text
    cut = encoded[-limit:]
    line = cut.find(b"\n")
    if encoded[-limit - 1 : -limit] != b"\n" and 0 <= line < len(cut) - 1:
        cut = cut[line + 1 :]
    return cut.decode("utf-8", "ignore")


def column_limit(dialect: str) -> int:
    """Return how many bytes of the newest log the column holds."""
    limit = current_settings().log_column_bytes
    return min(limit, kind_of(dialect).text_bytes or limit)
