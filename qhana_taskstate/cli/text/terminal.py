"""Fits lines into a terminal: its width, and the characters that it can show."""

from __future__ import annotations

import codecs
import io
import re
import shutil
import sys
from collections.abc import Sequence
from typing import Any, Final

#: Name under which `codecs` knows `_plain`.
_HANDLER: Final = "taskstate_plain"

#: What stands for a character that a terminal's encoding lacks.
_PLAIN: Final = {"├": "|", "└": "`", "│": "|", "─": "-", "·": "-", "…": "...", "↳": ">"}

#: Escape sequences for colours take no room.
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")

#: What a line begins with before its own text: blanks and the lines of a tree.
_BEGIN: Final = re.compile(r"[ │├└─·]*")

#: What stands below the lines of a tree.
_BELOW: Final = str.maketrans("├└─·", "│   ")

#: Narrowest rest of a line in which text is wrapped.
_NARROWEST: Final = 20


def soften(*streams: Any) -> None:
    """Let streams write something for each character that their encoding lacks (latin-1, ASCII), instead of raising."""
    codecs.register_error(_HANDLER, _plain)
    for stream in streams:
        # Others, such as the notebook's, take all characters.
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors=_HANDLER)


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_PLAIN.get(char, char.encode("ascii", "backslashreplace").decode()) for char in lacking), error.end


def wrapped(lines: Sequence[str], width: int) -> list[str]:
    """Break lines that are too long between words, and indent what follows a little deeper than their text.

    Args:
        lines: May hold escape sequences for colours.
        width: How many characters fit.
    """
    return [part for line in lines for part in _wrapped(line, width)]


def _wrapped(line: str, width: int) -> list[str]:
    if _length(line) <= width:
        return [line]
    begin = _BEGIN.match(line)
    lead = "" if begin is None else begin.group()
    follow = lead.translate(_BELOW) + "  "
    if width - len(follow) < _NARROWEST:
        follow = "  "
    parts, current = [], lead
    for word in re.split(r"(?<= )(?=[^ ])", line[len(lead) :]):
        if _length(current) + _length(word.rstrip()) > width and current.strip(" │├└─·"):
            parts.append(current.rstrip())
            current = follow
        while _length(current) + _length(word.rstrip()) > width and "\x1b" not in word:
            room = width - _length(current)
            parts.append(current + word[:room])
            current, word = follow, word[room:]
        current += word
    return [*parts, current.rstrip()]


def _length(text: str) -> int:
    return len(_COLOUR.sub("", text))


def terminal_columns() -> int | None:
    """Return the width of the terminal; None if the output goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
