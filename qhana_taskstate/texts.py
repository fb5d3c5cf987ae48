"""Texts on their way into a database: what no column can hold, and what is longer than anybody reads.

NUL is no character for PostgreSQL, and a lone surrogate none for UTF-8. The rule is one for all databases: what
people read is cleaned, what machines follow is refused.
"""

from __future__ import annotations

import re
from typing import Final

from .errors import TextCharacterError

#: How many characters of an error, of one line of a log and of one exception within an error are kept.
LONGEST_TEXT: Final = 16_384

_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")

_NAMES: Final = {"\0": "NUL"}


def clean(text: str) -> str:
    """Replace what a text column cannot hold: NUL (PostgreSQL) by U+FFFD, lone surrogates (UTF-8) by `?`."""
    if "\0" in text:
        text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def is_storable(text: str) -> bool:
    """Tell whether every database takes a text as it is."""
    return _UNSTORABLE.search(text) is None


def refuse_unstorable(text: str, member: str) -> str:
    """Return a text that every database takes as it is.

    Args:
        text: A text that machines follow: an address, an id, a path.
        member: What it is for, such as `Step.href`.

    Raises:
        TextCharacterError: Names the member and the character.
    """
    found = _UNSTORABLE.search(text)
    if found is not None:
        raise TextCharacterError(member, name_of(found[0]), found.start())
    return text


def name_of(character: str) -> str:
    """Return how a message names a character that cannot be shown."""
    named = f"U+{ord(character):04X}"
    return f"{named} ({_NAMES.get(character, 'a lone surrogate')})"


def in_ascii(text: str) -> str:
    """Return a text that a database of any character set takes; other characters become `?`."""
    return text if text.isascii() else text.encode("ascii", "replace").decode("ascii")


def cut(text: str, limit: int = LONGEST_TEXT) -> str:
    """Cut a text in the middle, and say how many characters were left out there.

    Args:
        text: Any text.
        limit: How many characters to keep of a longer one, half of them from each end.
    """
    if len(text) <= limit:
        return text
    head, rest = limit - limit // 2, limit // 2
    return f"{text[:head]} … [{len(text) - limit:,} characters left out] … {text[-rest:]}"


def cut_lines(text: str) -> str:
    """Cut each line of a text that is longer than `LONGEST_TEXT`."""
    if len(text) <= LONGEST_TEXT:
        return text
    return "\n".join(cut(line) for line in text.split("\n"))
