"""Time the calls of plugin code inside a tracked execution: `python -m benchmarks.hot_loops DATABASE_URL`, JSON."""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable

from celery import Celery
from sqlalchemy import Engine, event
from tqdm import tqdm

from qhana_taskstate import TaskState, add_log, plugin_task, report_progress, track

#: Rounds of a loop, and lines of a log.
_ROUNDS, _LINES = 1_000_000, 100_000
#: Seconds in which writes are counted.
_COUNTED_SECONDS = 3.0

_answer: dict[str, float] = {}
_writes = 0


def _note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
    global _writes
    _writes += statement.lstrip().upper().startswith("UPDATE") and "progress" in statement


def _a_round(make: Callable[[Iterable[int]], Iterable[int]]) -> float:
    """Nanoseconds of a round of an empty loop over what `make` wraps, less those of the loop itself."""
    began = time.perf_counter_ns()
    for _ in range(_ROUNDS):
        pass
    plain = time.perf_counter_ns() - began
    began = time.perf_counter_ns()
    for _ in make(range(_ROUNDS)):
        pass
    return (time.perf_counter_ns() - began - plain) / _ROUNDS


def _seconds_of_logging() -> float:
    with tempfile.NamedTemporaryFile("w") as file:
        logger = logging.getLogger("benchmarks.file")
        logger.propagate = False
        logger.setLevel(logging.INFO)
        logger.addHandler(logging.StreamHandler(file))
        began = time.process_time()
        for number in range(_LINES):
            logger.info("line %s of a task", number)
        return time.process_time() - began


@plugin_task(name="hot_loops")
def hot_loops() -> None:
    """Time each loop."""
    with open(os.devnull, "w") as nowhere:
        _answer["tqdm"] = _a_round(lambda items: tqdm(items, file=nowhere))
    _answer["track"] = _a_round(track)
    began = time.perf_counter_ns()
    for number in range(_ROUNDS):
        report_progress(number, target=_ROUNDS)
    _answer["report"] = (time.perf_counter_ns() - began) / _ROUNDS
    before, until = _writes, time.monotonic() + _COUNTED_SECONDS
    while time.monotonic() < until:
        for number in range(1000):
            report_progress(number, target=1000)
    _answer["writes"] = (_writes - before) / _COUNTED_SECONDS


@plugin_task(name="lines")
def lines() -> None:
    """Write many lines, timing the first and the last thousand."""
    for name, numbers in (
        ("first", range(1000)),
        ("between", range(1000, _LINES - 1000)),
        ("last", range(_LINES - 1000, _LINES)),
    ):
        began = time.perf_counter()
        for number in numbers:
            add_log(f"line {number} of a task")
        _answer[name] = time.perf_counter() - began


def main() -> None:
    """Run the tasks in this process and print what was timed."""
    app = Celery("hot_loops", broker="memory://")
    app.conf.update(task_always_eager=True)
    taskstate = TaskState(app, database_url=sys.argv[1])
    taskstate.upgrade()
    event.listen(Engine, "before_cursor_execute", _note)
    taskstate.start(hot_loops.s())
    began = time.process_time()
    taskstate.start(lines.s())
    _answer["lines"] = time.process_time() - began
    _answer["logging"] = _seconds_of_logging()
    print(json.dumps(_answer))


if __name__ == "__main__":
    main()
