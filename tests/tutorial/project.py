"""A project in a folder of its own, as a reader of the documentation makes it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from qhana_taskstate.testing import LocalProcess

from ..waiting import wait_until
from .readme import blocks_of

#: What the pages say where a reader has a Redis.
README_BROKER = "redis://localhost:6379/0"


class Project:
    """The files of one project of the documentation, and its worker.

    Args:
        name: Name of the project in its blocks.
        folder: An empty folder.
        broker_url: Takes the place of the Redis that the pages name.
        tables: A SQLite file with the tables.
    """

    def __init__(self, name: str, folder: Path, broker_url: str, tables: Path) -> None:
        self.folder = folder
        self._tables = tables
        self.broker_url = broker_url
        self.blocks = blocks_of(name)
        for block in self.blocks:
            if block.role.startswith("file "):
                self.write(block.role.removeprefix("file "), block.code)
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("TASKSTATE_", "CELERY_", "PYTHONPATH"))
        }
        self.environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{self.environment['PATH']}"
        self.worker: LocalProcess | None = None

    def write(self, name: str, code: str) -> None:
        """Write a file, with the broker of the test and the paths of the project."""
        code = code.replace(README_BROKER, self.broker_url).replace("sqlite:////tmp/", f"sqlite:////{self.folder}/")
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text(code, encoding="utf-8")

    def make_tables(self, name: str = "taskstate.db") -> None:
        """Do what `taskstate upgrade` does, in no time."""
        shutil.copyfile(self._tables, self.folder / name)

    def run(self, *command: str, code: int = 0) -> str:
        """Run a command, check its exit code, and return its standard output."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def run_python(self, script: str) -> str:
        """Run Python code in the folder."""
        return self.run(sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", script)

    def run_celery(self, *arguments: str, code: int = 0) -> str:
        """Run `celery -A worker ...` in the folder."""
        return self.run(sys.executable, "-m", "celery", "-A", "worker", *arguments, code=code)

    def start_worker(self) -> None:
        """Start the project's worker and wait until it is ready."""
        log = self.folder / "worker.log"
        self.worker = LocalProcess(
            [sys.executable, "-m", "celery", "-A", "worker", "worker", "--loglevel", "INFO", "--concurrency", "1"],
            log_path=log,
            cwd=self.folder,
            env=self.environment,
        )
        self.worker.start()
        wait_until("the worker of the project is ready", lambda: " ready." in log.read_text())

    def close(self) -> None:
        """End what runs."""
        if self.worker is not None:
            self.worker.close()
