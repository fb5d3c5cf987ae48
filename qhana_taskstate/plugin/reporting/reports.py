"""Progress and log lines that running plugin code reports. Only memory on the hot path."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from operator import length_hint
from typing import TypeVar

from ...context.reporter import reporting_execution
from ...errors import ProgressError, TextTooLongError
from ...facts import Progress

T = TypeVar("T")


#: Length of the column that holds the unit.
UNIT_LENGTH = 100


def report_progress(
    value: float, *, start: float | None = None, target: float | None = None, unit: str | None = None
) -> None:
    """Say how far the running execution has come. Cheap: kept in memory and written a few times a second.

    Args:
        value: How far, in the unit.
        start: The value at the beginning; None keeps what was said before, at first 0.
        target: The value at the end; None keeps what was said before, at first 100.
        unit: Name of the unit, at most 100 characters; None keeps what was said before, at first "%".

    Raises:
        ProgressError: (a ValueError and a TypeError) If a number is none, or not finite.
        TextTooLongError: If the unit is too long.

    Outside an execution the values are checked and nothing else happens. A thread that a plugin task has started
    reports for it where no other execution runs in the process; elsewhere run it through `taskstate.bound`. A process
    that a plugin task has started reports nothing, and warns once.
    """
    numbers = {"value": value, "start": start, "target": target}
    checked = {name: _number(name, number) for name, number in numbers.items() if number is not None}
    if "value" not in checked:
        raise ProgressError("progress value None is no number; report how far the task has come")
    if unit is not None and not isinstance(unit, str):
        raise ProgressError(f"progress unit {unit!r} is no text")
    if unit is not None and len(unit) > UNIT_LENGTH:
        raise TextTooLongError(f"progress unit of {len(unit)} characters is too long; {UNIT_LENGTH} are kept")
    execution = reporting_execution()
    if execution is None:
        return
    before = execution.progress or Progress(0.0)
    execution.progress = Progress(
        checked["value"],
        checked.get("start", before.start),
        checked.get("target", before.target),
        before.unit if unit is None else unit,
    )
    execution.progress_dirty = True


def _number(name: str, number: object) -> float:
    try:
        # numpy's and decimal's numbers count; a text is no number though float() would read it.
        converted = math.nan if isinstance(number, (str, bytes, bool)) else float(number)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        converted = math.nan
    if not math.isfinite(converted):
        raise ProgressError(f"progress {name} {number!r} is no finite number")
    return converted


def track(iterable: Iterable[T], *, total: float | None = None, unit: str = "items") -> Iterator[T]:
    """Pass the items of an iterable on and report after each how many have been worked on.

    Args:
        iterable: What to go through.
        total: How many items there are; None asks the iterable, and where it does not know either, the target
            moves along.
        unit: What an item is.

    Yields:
        The items.
    """
    known = length_hint(iterable, -1) if total is None else _number("total", total)
    count = 0
    report_progress(0, start=0, target=known if known >= 0 else 1, unit=unit)
    for item in iterable:
        yield item
        count += 1
        report_progress(count, target=known if known >= 0 else count + 1)
    report_progress(count, target=known if known >= 0 else count)


def add_log(text: str) -> None:
    """Add an entry to the log of the running execution's task. Kept in memory and written a few times a second.

    It is there after any end that lets code run, also if the execution fails and its session rolls back. Outside
    an execution nothing happens.

    Args:
        text: One or several lines; an empty text adds nothing.

    Raises:
        TypeError: If it is no text.
    """
    if not isinstance(text, str):
        raise TypeError(f"a log entry is a text, not {type(text).__name__} {text!r}; use str()")
    execution = reporting_execution()
    if execution is not None and text:
        execution.lines.append(text)
