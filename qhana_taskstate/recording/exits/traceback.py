"""Shortens tracebacks to the frames that a plugin author knows."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Final

import billiard
import celery
import kombu

#: This package. Where it lies, and not its name: a folder of somebody else's may be called so, as a clone of it is.
_OURS: Final = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))

#: Folders of packages whose frames lead to the plugin's function.
_CALLERS: Final = tuple(
    os.path.join(folder, "")
    for folder in (_OURS, *(os.path.dirname(str(package.__file__)) for package in (billiard, celery, kombu)))
)

#: The demo is a plugin, too.
_DEMO: Final = os.path.join(_OURS, "demo", "")

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
    return found is not None and found["path"].startswith(_CALLERS) and not found["path"].startswith(_DEMO)
