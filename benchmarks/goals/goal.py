"""One number that is promised, beside what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Goal:
    """A number, and what it is to be.

    Attributes:
        name: What was measured.
        value: The median of what was measured.
        bound: What `value` is compared with.
        kind: "at least" or "at most".
        low: The least that was measured.
        high: The most.
        unit: Of all three numbers; "" for a ratio.
    """

    name: str
    value: float
    bound: float
    kind: Literal["at least", "at most"]
    low: float
    high: float
    unit: str = ""

    @property
    def met(self) -> bool:
        """Whether the median keeps the bound."""
        return self.value >= self.bound if self.kind == "at least" else self.value <= self.bound

    def __str__(self) -> str:
        """The goal's line, as it is printed."""
        unit = f" {self.unit}" if self.unit else ""
        word = "met" if self.met else "MISSED"
        return (
            f"{word:6}  {self.name}: {self.value:.3g}{unit} (from {self.low:.3g} to {self.high:.3g}),"
            f" {self.kind} {self.bound:g}{unit}"
        )


def at_least(name: str, measured: Sequence[float], bound: float, unit: str = "") -> Goal:
    """A goal whose median is to be no smaller than the bound."""
    return Goal(name, statistics.median(measured), bound, "at least", min(measured), max(measured), unit)


def at_most(name: str, measured: Sequence[float], bound: float, unit: str = "") -> Goal:
    """A goal whose median is to be no greater than the bound."""
    return Goal(name, statistics.median(measured), bound, "at most", min(measured), max(measured), unit)
