"""Shortens tracebacks to the frames that a plugin author knows. Pure."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Final

#: Packages whose frames lead to the plugin's function.
_CALLERS: Final = ("celery", "billiard", "kombu", "qhana_taskstate")

_FRAME: Final = re.compile(r'  File "(?P<path>[^"]+)", line \d+')
_HEAD: Final = "Traceback (most recent call last):"


def beginning_at_plugin(text: str) -> str:
    """Leave out the frames of Celery and of this package at the beginning of a traceback, and of each of its causes.

    One that has no other frames stays as it is.

    Args:
        text: As the module `traceback` formats it.
    """
    sections: list[list[str]] = [[]]
    for line in text.splitlines(keepends=True):
        if line.startswith(_HEAD):
            sections.append([])
        sections[-1].append(line)
    return "".join(line for section in sections for line in _shortened(section))


def _shortened(section: Sequence[str]) -> Sequence[str]:
    starts = [number for number, line in enumerate(section) if _FRAME.match(line)]
    own = next((number for number in starts if not _is_caller(section[number])), None)
    if own is None or own == starts[0]:
        return section
    return [*section[: starts[0]], *section[own:]]


def _is_caller(line: str) -> bool:
    found = _FRAME.match(line)
    folders = found["path"].split(os.sep)[:-1] if found is not None else []
    # The demo is a plugin, too.
    return any(name in folders for name in _CALLERS) and "demo" not in folders
