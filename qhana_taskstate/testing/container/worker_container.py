"""A Celery worker as a container of pytest-celery that is a local process tree."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import celery
from pytest_celery import CeleryWorkerContainer

from qhana_taskstate.testing.container import running_processes
from qhana_taskstate.testing.container.process_container import LocalProcessContainer
from qhana_taskstate.testing.process import LocalProcess


class LocalWorker(LocalProcessContainer, CeleryWorkerContainer):  # type: ignore[misc] # pytest-celery ships no types
    """A real `celery worker`, with everything that it starts."""

    prefix_name = "worker"

    def __init__(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        env: Mapping[str, str | None] | None = None,
        cwd: Path | None = None,
        name: str | None = None,
    ) -> None:
        """Describe the worker.

        Args:
            command: As `LocalWorker.command()` makes it; `%h` stands for the first 12 characters of the id, as
                the host name does in a container.
            folder: Holds the worker's log.
            env: Laid over this process's environment; None removes a variable.
            cwd: Where it runs, so where its app is found. Default: `folder`.
            name: Name of the container, not of the worker.
        """
        super().__init__(name)
        self._folder = folder
        self._cwd = cwd or folder
        self._environment = _worker_environment(self._cwd, env or {})
        self._command = [word.replace("%h", self.id[:12]) for word in command]
        self._process: LocalProcess | None = None

    @classmethod
    def command(
        cls,
        *args: str,
        debugpy: bool = False,
        wait_for_client: bool = True,
        application: str = "app",
        pool: str = "prefork",
        concurrency: int = 2,
        queues: str | None = None,
        **kwargs: object,
    ) -> list[str]:
        """Build the command of a worker.

        Args:
            args: Further arguments of `celery worker`; the last one wins.
            debugpy: Not supported here.
            wait_for_client: Goes with `debugpy`.
            application: What stands after `-A`.
            pool: prefork, threads, solo or gevent.
            concurrency: How many tasks at once.
            queues: Names of the queues to serve, with commas. Default: what the app's configuration says.
            kwargs: Ignored, as in the base class.

        Raises:
            NotImplementedError: `debugpy` was asked for.
        """
        if debugpy:
            raise NotImplementedError("a local worker runs no debug server; attach a debugger to its pid")
        return [
            sys.executable,
            *("-m", "celery", "-A", application, "worker"),
            *("-n", f"{cls.worker_name()}@%h"),
            *(("-Q", queues) if queues else ()),
            *("-P", pool, "-c", str(concurrency)),
            *("-l", cls.log_level()),
            # They only cost time where there are few workers.
            *("--without-gossip", "--without-mingle"),
            *args,
        ]

    @classmethod
    def version(cls) -> str:
        """The version of Celery, which is the installed one."""
        return str(celery.__version__)

    @classmethod
    def utils_module(cls) -> ModuleType:
        """The module that becomes the worker's `utils`, for `get_running_processes_info`."""
        return running_processes

    @property
    def ready_prompt(self) -> str:
        """What Celery logs last when it starts."""
        return " ready."

    @property
    def process(self) -> LocalProcess | None:
        """The worker's main process."""
        return self._process

    @property
    def environment(self) -> Mapping[str, str]:
        """The whole environment of the worker."""
        return self._environment

    @property
    def working_folder(self) -> Path:
        """Where the worker runs."""
        return self._cwd

    @property
    def node_name(self) -> str:
        """The worker's name in Celery, `name@host`, for `app.control`."""
        last = max(index for index, word in enumerate(self._command) if word in ("-n", "--hostname"))
        return self._command[last + 1]

    @property
    def celeryconfig(self) -> dict[str, Any]:
        """A worker offers no URL to others."""
        return {}

    def start(self) -> None:
        """Start the worker, if it does not run. `ready` waits for it."""
        if self._process is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._process = LocalProcess(
                self._command, log_path=self._folder / f"{self.name}.log", cwd=self._cwd, env=self._environment
            )
        elif self._process.running:
            return
        else:
            # Children that a killed worker left behind end here at the latest.
            self._process.close()
        self._process.start()


def _worker_environment(folder: Path, changes: Mapping[str, str | None]) -> dict[str, str]:
    """Lay changes over this process's environment, such that `python` and the worker's folder are found first."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    for key, value in changes.items():
        if value is None:
            environment.pop(key, None)
        else:
            environment[key] = value
    own = environment.get("PYTHONPATH", "")
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), own]))
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    return environment
