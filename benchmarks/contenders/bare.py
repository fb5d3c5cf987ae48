"""Celery alone: nothing is kept of what a task did."""

from __future__ import annotations

import os
from collections.abc import Callable

from celery import Celery, chord, group

from benchmarks.contenders.configuration import configure

app = configure(Celery("bare", broker=os.environ["CELERY_BROKER_URL"], backend=os.environ["CELERY_RESULT_URL"]))


@app.task(name="bare.nothing", ignore_result=True)
def nothing() -> None:
    """Do nothing."""


@app.task(name="bare.part", ignore_result=False)
def part() -> int:
    """Be a member of a chord, whose results Celery needs."""
    return 1


@app.task(name="bare.body", ignore_result=True)
def body(_parts: list[int]) -> None:
    """Be the body of a chord."""


def _nothing(count: int) -> int:
    for _ in range(count):
        nothing.delay()
    return count


def _groups(size: int) -> Callable[[int], int]:
    def send(count: int) -> int:
        for _ in range(max(count // size, 1)):
            group(nothing.s() for _ in range(size)).apply_async()
        return max(count // size, 1) * size

    return send


def _chords(count: int) -> int:
    for _ in range(max(count // 11, 1)):
        chord([part.s() for _ in range(10)], body.s()).apply_async()
    return max(count // 11, 1) * 11


def prepare() -> None:
    """Nothing is kept."""


KINDS: dict[str, Callable[[int], int]] = {
    "nothing": _nothing,
    "group": _groups(100),
    "group of 1000": _groups(1000),
    "group of 10000": _groups(10_000),
    "chord": _chords,
}
