"""How processes are started: by `subprocess`, unless somebody has a quicker way."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any, Protocol


class Supervisor(Protocol):
    """What is known of a running supervisor, as of a `subprocess.Popen`."""

    @property
    def pid(self) -> int:
        """Its pid."""
        ...

    def poll(self) -> int | None:
        """Whether it has ended: None while it runs."""
        ...

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises subprocess.TimeoutExpired."""
        ...

    def send_signal(self, sig: int) -> None:
        """Send a signal, unless it has ended."""
        ...

    def kill(self) -> None:
        """Kill it."""
        ...


#: Starts a supervisor. The tests of this package start Celery in a quicker way, here and below.
popen: Callable[..., Supervisor] = subprocess.Popen
#: Runs a command to its end.
run: Callable[..., subprocess.CompletedProcess[Any]] = subprocess.run
