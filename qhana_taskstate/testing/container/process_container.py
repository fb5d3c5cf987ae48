"""A "container" of pytest-celery that is a process tree on this machine.

It keeps the promises of `pytest_celery.CeleryTestContainer`: a status in Docker's words, logs that go on over
restarts, `kill`, `reload`, `restart`, `exec_run`, `teardown`. What Docker's network would separate shares 127.0.0.1.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import uuid
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pytest_celery import CeleryTestContainer
from pytest_docker_tools.exceptions import ContainerFailed, ContainerNotReady

from qhana_taskstate.testing.container import running_processes
from qhana_taskstate.testing.process import LocalProcess, child_pids, signal_number
from qhana_taskstate.testing.server import HOST
from qhana_taskstate.testing.waiting import poll

#: How long `kill` waits for a process that it sent SIGKILL.
_KILL_SECONDS = 10.0
#: How long a worker's start may take.
_READY_SECONDS = 60.0


class LocalProcessContainer(CeleryTestContainer):  # type: ignore[misc] # pytest-celery ships no types
    """A "container" that is one supervised process tree on this machine.

    It is made without running; `start` runs it. `id` and `name` stay the same over restarts.
    """

    #: Starts the name of each container of this class.
    prefix_name: ClassVar[str] = "local"

    def __init__(self, name: str | None = None) -> None:
        """Describe the container.

        Args:
            name: Default: the class's prefix and a part of the id.
        """
        self._id = uuid.uuid4().hex
        self._name = name or f"{self.prefix_name}-{self._id[:12]}"
        self._removed = False
        # The base class reads everything from an object of Docker's client; here this object is its own source.
        super().__init__(self)

    @property
    @abstractmethod
    def process(self) -> LocalProcess | None:
        """The process that is run, None before the first start and after `remove`."""

    @abstractmethod
    def start(self) -> None:
        """Start the process, if it does not run. Returns before it is ready to be used."""

    @property
    def id(self) -> str:
        """A random hexadecimal id."""
        return self._id

    @property
    def name(self) -> str:
        """The name, as it stands in messages and reports."""
        return self._name

    @property
    def pid(self) -> int:
        """The pid of the main process, -1 if there is none yet."""
        return -1 if self.process is None else self.process.pid

    @property
    def status(self) -> str:
        """The state in Docker's words: created, running, paused, exited or removing."""
        if self._removed:
            return "removing"
        if self.process is None:
            return "created"
        if not self.process.running:
            return "exited"
        return "paused" if self.process.frozen else "running"

    @property
    def exit_code(self) -> int | None:
        """The exit code of the main process (negative: minus the signal), None while it runs."""
        return None if self.process is None else self.process.poll()

    @property
    def attrs(self) -> dict[str, Any]:
        """What `docker inspect` would tell, as far as it makes sense here."""
        return {
            "Id": self.id,
            "Name": f"/{self.name}",
            "State": {"Status": self.status, "Pid": self.pid, "ExitCode": self.exit_code},
            "Config": {
                "Hostname": self.id[:12],
                "Env": [f"{key}={value}" for key, value in self.environment.items()],
            },
            "HostConfig": {"PortBindings": {}},
            "NetworkSettings": {
                "Networks": {"loopback": {"IPAddress": HOST}},
                "Ports": {f"{port}/tcp": [{"HostIp": HOST, "HostPort": str(port)}] for port in self.open_ports},
            },
        }

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment of the process and of what `exec_run` runs."""
        return os.environ

    @property
    def working_folder(self) -> Path:
        """The folder where the process and what `exec_run` runs are at home."""
        return Path.cwd()

    @property
    def open_ports(self) -> Sequence[int]:
        """The TCP ports that it serves."""
        return ()

    def _wait_port(self, port: str) -> int:
        if not port:
            raise ValueError("Port cannot be empty")
        return int(port.partition("/")[0])

    def ready(self) -> bool:
        """Wait until it can be used.

        Returns:
            True; False if it was not started yet or is frozen.

        Raises:
            ContainerFailed: It has ended.
            ContainerNotReady: It did not get ready in time.
        """
        if self.status in ("created", "paused", "removing"):
            return False
        if not poll(self._is_ready, timeout=_READY_SECONDS):
            raise ContainerNotReady(self, f"{self.name} was not ready within {_READY_SECONDS:g} s; {self._log_end()}")
        return True

    def _is_ready(self) -> bool:
        # Looked at before the answer: what was ready and ended since is not ready.
        if self.status == "exited":
            raise ContainerFailed(self, f"{self.name} ended with code {self.exit_code}; {self._log_end()}")
        return self._answers()

    def _log_end(self) -> str:
        return f"its log ends with:\n{self.recent_logs()[-3000:]}"

    def _answers(self) -> bool:
        """Look once whether it is ready: whether its prompt stands in the log of the current run."""
        return self.ready_prompt is None or self.ready_prompt in self.recent_logs()

    def logs(self) -> str:
        """Return all that was written to standard output and error, over all restarts."""
        return "" if self.process is None else self.process.logs()

    def recent_logs(self) -> str:
        """Return what was written since the last start."""
        return "" if self.process is None else self.process.recent_logs()

    def wait_for_log(self, text: str, timeout: float = 30.0, *, count: int = 1) -> None:
        """Wait until the log of the current run holds `text`.

        Args:
            text: What to look for.
            timeout: Seconds.
            count: How many times it must be there.

        Raises:
            AssertionError: It did not come in time; the message ends with the log.
        """
        if not poll(lambda: self.recent_logs().count(text) >= count, timeout=timeout):
            raise AssertionError(f"{self.name} did not log {text!r} within {timeout:g} s; {self._log_end()}")

    def reload(self) -> None:
        """Do nothing: `status` and `attrs` always tell of now."""

    def kill(self, signal: str | int | None = None) -> None:
        """Send a signal to the main process alone.

        Unlike in Docker, what it started may live on after SIGKILL, as on a real machine; see `kill_tree`.

        Args:
            signal: Name or number, default SIGKILL, which is also waited for.
        """
        number = signal_number(signal)
        if self.process is not None:
            self.process.send_signal(number)
            if number == signal_number("SIGKILL"):
                self.process.wait(_KILL_SECONDS)

    def kill_tree(self) -> None:
        """Kill the main process and everything below it (SIGKILL) and wait until they are gone."""
        if self.process is not None:
            self.process.close()

    def child_pids(self) -> list[int]:
        """List the pids of the direct children of the main process (of a prefork worker: its pool)."""
        return child_pids(self.process.pid) if self.process is not None and self.process.running else []

    def tree_pids(self) -> list[int]:
        """List the pids of all that lives of the tree, also of children whose parent was killed."""
        return [] if self.process is None else self.process.descendants()

    def kill_child(self, pid: int | None = None, signal: str | int | None = None) -> int:
        """Send a signal to one process below the main one.

        Args:
            pid: Default: the first child.
            signal: Name or number, default SIGKILL.

        Returns:
            The pid that got it.

        Raises:
            ProcessLookupError: It has no such child.
        """
        mine = self.child_pids() if pid is None else [found for found in self.tree_pids() if found == pid]
        if not mine:
            raise ProcessLookupError(f"{self.name} has no child {'' if pid is None else pid}")
        os.kill(mine[0], signal_number(signal))
        return mine[0]

    def freeze(self) -> None:
        """Stop the whole tree (SIGSTOP), as when a machine hangs, and wait until it stands still; then it is "paused".

        Raises:
            ProcessError: Some of it did not stand still in time.
        """
        if self.process is not None:
            self.process.freeze()

    def thaw(self) -> None:
        """Let a frozen tree go on."""
        if self.process is not None:
            self.process.thaw()

    def stop(self, timeout: float = 60.0, signal: str | int = "SIGTERM") -> int | None:
        """Ask it to end, and kill what is left of its tree after that or after `timeout` seconds.

        Returns:
            The exit code of the main process.
        """
        return None if self.process is None else self.process.stop(timeout, signal_number(signal))

    def restart(self, timeout: float = 10.0) -> None:
        """Stop, as `stop` does, and start again; return once it is ready.

        Args:
            timeout: Seconds that the end may take before the tree is killed.
        """
        self.stop(timeout)
        self.start()
        self.ready()

    def remove(self, *args: object, **kwargs: object) -> None:
        """Kill the tree and give up all that it held. Removing twice is fine."""
        self.kill_tree()
        self._removed = True

    def teardown(self) -> None:
        """Do what `remove` does, for the end of a test."""
        self.remove()

    def exec_run(self, cmd: str | Sequence[str], **kwargs: object) -> tuple[int, bytes]:
        """Run a command at the container's home and with its environment.

        Args:
            cmd: Program and arguments; a string is split as a shell does.
            kwargs: What Docker's client knows beyond that is ignored.

        Returns:
            Exit code, and standard output and error in one.
        """
        words = shlex.split(cmd) if isinstance(cmd, str) else list(cmd)
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.working_folder,
            env={**self.environment, running_processes.ROOT_VARIABLE: str(self.pid)},
            timeout=_READY_SECONDS,
            check=False,
        )
        return done.returncode, done.stdout
