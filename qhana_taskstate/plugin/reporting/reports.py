"""Progress and log lines that running plugin code reports. Only memory on the hot path."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from operator import length_hint
from typing import TypeVar

from ...context.current import execution_here
from ...context.loops import NOTHING, Loop
from ...context.report_owner import reporting_execution
from ...errors import ProgressError, TextTooLongError

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
    execution = execution_here()
    if execution is None or execution.inherited:
        execution = reporting_execution()
    _, first, last, name = NOTHING if execution is None else execution.reported
    # This is called in loops: what is right as it is, or was said before, is only looked at.
    try:
        # Infinities and NaN times zero are NaN; what no float can hold overflows.
        if (type(value) is not int and type(value) is not float) or value * 0.0 != 0.0:
            value = _number("value", value)
    except OverflowError:
        value = _number("value", value)
    if start is not None and start is not first:
        first = _number("start", start)
    if target is not None and target is not last:
        last = _number("target", target)
    if unit is not None and unit is not name:
        name = _checked_unit(unit)
    if execution is not None:
        execution.reported = (value, first, last, name)
        loop = execution.loop
        if loop is not None:
            loop.said = loop.begun


def _checked_unit(unit: object) -> str:
    if not isinstance(unit, str):
        raise ProgressError(f"progress unit {unit!r} is no text")
    if len(unit) > UNIT_LENGTH:
        raise TextTooLongError(f"progress unit of {len(unit)} characters is too long; {UNIT_LENGTH} are kept")
    return unit


def _number(name: str, number: object) -> float:
    try:
        # numpy's and decimal's numbers count; a text is no number though float() would read it.
        converted = math.nan if isinstance(number, (str, bytes, bool)) else float(number)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        converted = math.nan
    if not math.isfinite(converted):
        raise ProgressError(f"progress {name} {number!r} is no finite number")
    # A plain one as it is: the next report often has the very same target, which then needs no look.
    return number if type(number) is int or type(number) is float else converted


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
    report_progress(0, start=0, target=known if known >= 0 else 1, unit=unit)
    execution = reporting_execution()
    if execution is None:
        for item in iterable:
            yield item
        return
    loop = execution.loop = Loop(known if known >= 0 else None, unit, execution.loop)
    try:
        # Counted by what goes through the items, since a statement of its own would cost as much as all the rest.
        for loop.begun, item in enumerate(iterable, 1):
            yield item
        loop.ended = True
    finally:
        loop.over = True
        if loop.ended or loop.speaks:
            execution.reported = loop.values()
        if execution.loop is loop:
            outer = execution.loop = loop.outer
            if outer is not None:
                outer.said = outer.begun


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
    execution = execution_here()
    if execution is None or execution.inherited:
        execution = reporting_execution()
    if execution is not None and text:
        execution.lines.append(text)
