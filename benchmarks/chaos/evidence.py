"""What really happened, noted beside the system under test: one file for each process, one line for each event.

A line is one `write` to a file opened for appending, so that what was noted survives a SIGKILL of the process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened.

    Attributes:
        at: Seconds since the epoch.
        pid: Process that noted it.
        kind: begin, line, end, fail (of a node); starting, started, refused (of a client).
        plan: Number of the plan.
        node: Name of the node within its plan.
        text: What else there is to tell.
    """

    at: float
    pid: int
    kind: str
    plan: int
    node: str
    text: str


class Notebook:
    """Where one process notes events.

    Args:
        folder: The same for all processes of a run.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pid = 0
        self._file = -1

    def note(self, kind: str, plan: int, node: str = "-", text: str = "") -> None:
        """Note an event that has just happened."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._file = os.open(self._folder / str(self._pid), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(self._file, f"{time.time():.6f} {kind} {plan} {node} {' '.join(text.split())}\n".encode())


def read(folder: Path) -> Iterator[Event]:
    """Return all events of a run, of each process in order."""
    for path in sorted(folder.iterdir()):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            at, kind, plan, node, *rest = line.split(" ", 4)
            yield Event(float(at), int(path.name), kind, int(plan), node, rest[0] if rest else "")
