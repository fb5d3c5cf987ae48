"""How many functions of ours the tracking of an execution costs, and whether its walk goes up again."""

from __future__ import annotations

import re
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final

import pytest
from celery.contrib.testing.worker import start_worker

import qhana_taskstate
from qhana_taskstate import TaskState, plugin_task
from tests.apps.factory import close_state, make_app
from tests.waiting import wait_until

#: Calls of our own functions from `task_prerun` to `task_postrun`, on SQLite, for a task that does nothing. Two of them
#: are for each of its statements.
MOST_CALLS: Final = 110

_FOLDER: Final = f"{Path(qhana_taskstate.__file__).parent}/"


@plugin_task(name="calls.nothing")
def nothing() -> None:
    """Do nothing."""


def _floors() -> dict[str, int]:
    """Return how high each folder stands, as the layers of `pyproject.toml` say: the highest has the largest number."""
    settings = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    (layers,) = [found["layers"] for found in settings["tool"]["importlinter"]["contracts"] if "layers" in found]
    return {
        folder.strip(): floor for floor, layer in enumerate(reversed(layers)) for folder in re.split(r"[|:]", layer)
    }


class Counter:
    """Counts, in the thread that runs the worker's tasks, the calls from the first handler to the last.

    Attributes:
        executions: The calls of each execution.
        ups: Calls from a folder into one that stands higher, and from where.
    """

    def __init__(self) -> None:
        self.executions: list[list[str]] = []
        self.ups: list[str] = []
        self._floors = _floors()
        self._calls: list[str] | None = None

    def _floor(self, frame: FrameType) -> int:
        path = frame.f_code.co_filename.removeprefix(_FOLDER)
        return self._floors[path.partition("/")[0].removesuffix(".py")]

    def _note_up(self, frame: FrameType) -> None:
        caller = frame.f_back
        while caller is not None and not caller.f_code.co_filename.startswith(_FOLDER):
            caller = caller.f_back
        if caller is not None and self._floor(frame) > self._floor(caller):
            names = [f"{one.f_code.co_filename.removeprefix(_FOLDER)}:{one.f_code.co_name}" for one in (caller, frame)]
            self.ups.append(" -> ".join(names))

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if not code.co_filename.startswith(_FOLDER) or not threading.current_thread().name.startswith("Thread"):
            return
        handler = getattr(frame.f_locals.get("handler"), "__name__", "") if code.co_name == "guarded" else ""
        if event == "call":
            if handler == "on_task_prerun":
                self._calls = []
            if self._calls is not None:
                self._calls.append(f"{code.co_filename.removeprefix(_FOLDER)}:{code.co_name}")
                self._note_up(frame)
        elif event == "return" and handler == "on_task_postrun" and self._calls is not None:
            self.executions.append(self._calls)
            self._calls = None


@pytest.fixture
def state(migrated_database_url: str) -> Iterator[TaskState]:
    """A `TaskState` whose worker runs in a thread of this process."""
    app, state = make_app("memory://", "cache+memory://", migrated_database_url)
    app.set_current()
    # What other tests left in the memory of this process.
    app.control.purge()
    yield state
    close_state(state)


@pytest.mark.databases("sqlite")
def test_an_execution_that_does_nothing_makes_few_calls_and_none_of_them_goes_up(state: TaskState) -> None:
    counter = Counter()
    threading.setprofile(counter)
    try:
        with start_worker(state.app, pool="solo", loglevel="WARNING", perform_ping_check=False, shutdown_timeout=20):
            for _ in range(3):
                before = len(counter.executions)
                nothing.start()
                wait_until("the end of the execution", lambda: len(counter.executions) > before)  # noqa: B023  (called at once)
    finally:
        threading.setprofile(None)
    counts = [len(calls) for calls in counter.executions]
    print(f"calls of an execution that does nothing: {counts}")
    # The first one of a process also starts its thread.
    assert counts[-1] <= MOST_CALLS, "\n".join(counter.executions[-1])
    assert counter.ups == []
