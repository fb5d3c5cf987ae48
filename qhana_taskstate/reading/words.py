"""Durations, times, numbers and lines as people read them. Pure."""

from __future__ import annotations

import unicodedata
from datetime import datetime
from typing import Final

#: Characters that turn the direction of writing.
_DIRECTIONS: Final = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def duration(seconds: float) -> str:
    """Say a time span as people do.

    Args:
        seconds: Its length, 0 or more.
    """
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, second = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {second} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def clock(moment: datetime) -> str:
    """Say a moment (aware) in the reader's time zone, to the second."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S %Z}"


def brief_clock(moment: datetime, today: datetime) -> str:
    """Say a moment (aware) in the reader's time zone in a few characters: the time alone if it was today."""
    local = moment.astimezone()
    return f"{local:%H:%M:%S}" if local.date() == today.astimezone().date() else f"{local:%Y-%m-%d %H:%M}"


def progress(value: float, target: float, unit: str) -> str:
    """Say a progress: `60 of 100 %`, or `60 of 100` without a unit."""
    return f"{number(value)} of {number(target)} {visible(unit)}".rstrip()


def number(value: float) -> str:
    """Write a number without needless digits."""
    return f"{value:.0f}" if value == int(value) else f"{value:.2f}"


def first_line(text: str) -> str:
    """Return the first line of a text, with "…" if there are more; control characters are made visible."""
    head, _, rest = text.strip().partition("\n")
    return visible(head.rstrip()) + (" …" if rest.strip() else "")


def visible(text: str) -> str:
    """Make control characters visible: a log or an error must not steer the terminal that it is shown on.

    Tabs stay; so a text of several lines is to be split before.
    """
    if text.isprintable():
        return text
    return "".join(char.encode("unicode_escape").decode() if _steers(char) else char for char in text)


def _steers(char: str) -> bool:
    return char in _DIRECTIONS or (char != "\t" and unicodedata.category(char) == "Cc")
