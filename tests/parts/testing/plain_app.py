"""A Celery app that knows nothing of task states: what the nodes' own tests run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from celery import Celery

app = Celery("plain")


@app.task
def ping() -> str:
    return "pong"


@app.task
def pool_child() -> int:
    """The pid that runs tasks."""
    return os.getpid()


@app.task
def variable(name: str) -> str | None:
    return os.environ.get(name)


@app.task
def start_another(seconds: float, mark: str) -> None:
    """Let another process sleep, and say in a file which."""
    another = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({seconds})"])
    Path(mark).write_text(str(another.pid))
    another.wait()


@app.task
def sleep(seconds: float, mark: str) -> None:
    """Say in a file that it runs, then sleep."""
    Path(mark).write_text(str(os.getpid()))
    time.sleep(seconds)
