"""What all local servers share: a port, a folder and a process."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import sysconfig
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from qhana_taskstate.errors import TaskStateError
from qhana_taskstate.testing.process import LocalProcess

#: The only address a server of the tests listens on.
HOST = "127.0.0.1"
_PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST_PORT = 15000
#: What servers say when somebody else listens on their port.
_PORT_TAKEN = ("address already in use", "eaddrinuse")
#: How often a new server looks for another port when somebody else took the one it chose.
_PORT_ATTEMPTS = 3
#: Environment variable: "hidden" lets `find_program` see nothing but what came with Python packages.
SYSTEM_PROGRAMS = "TASKSTATE_TESTING_SYSTEM_PROGRAMS"


class ServerMissingError(TaskStateError, RuntimeError):
    """The program or the driver of a server is not on this machine; the message says what to install."""


class ServerStartError(TaskStateError, RuntimeError):
    """A server ended, or did not answer in time, while it was started; the message ends with its log."""


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on at this moment.

    It lies below the range that the kernel gives to outgoing connections: a client that tries to reach a server
    which is down could otherwise take the port itself, or even connect to itself.
    """
    first_outgoing = int(_PORT_RANGE.read_text().split()[0]) if _PORT_RANGE.exists() else 32768
    for _ in range(200):
        port = _LOWEST_PORT + secrets.randbelow(max(1, first_outgoing - _LOWEST_PORT))
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port))
            return port
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def find_program(*names: str, folders: Sequence[str | Path] = ()) -> Path | None:
    """Find a program by its names, first in `folders`, then on PATH and in the folders for system programs.

    With `TASKSTATE_TESTING_SYSTEM_PROGRAMS=hidden` in the environment only those below the folder of this Python's
    packages are found, as on a machine where nothing else is installed.
    """
    # A normal user's PATH often lacks the folders where Debian puts servers.
    places = [*map(str, folders), *os.environ.get("PATH", os.defpath).split(os.pathsep), "/usr/sbin", "/usr/local/sbin"]
    if os.environ.get(SYSTEM_PROGRAMS) == "hidden":
        places = [place for place in places if _came_with_a_package(place)]
    for name in names:
        found = shutil.which(name, path=os.pathsep.join(places))
        if found is not None:
            return Path(found)
    return None


def _came_with_a_package(folder: str) -> bool:
    # An environment may be made with a Python that itself lies in /usr: the prefix alone would hide nothing then.
    packages = Path(sysconfig.get_path("platlib")).resolve()
    return Path(folder).resolve().is_relative_to(packages)


class LocalServer(ABC):
    """A real server on a free port of 127.0.0.1 with its data in a temporary folder.

    It keeps its port and folder over `stop`, `kill` and `start`; `close` removes the folder. Nothing of it stays
    when this Python process ends, not even after SIGKILL. Usable as a context manager, which starts and closes it.
    """

    #: What the server is called in messages, folders and logs.
    kind = "server"
    #: How long a start may take, in seconds.
    start_seconds = 60.0

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._port: int | None = None
        self._process: LocalProcess | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def folder(self) -> Path:
        """The folder that holds the data and the log. Made at the first look."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix=f"taskstate-{self.kind}-", dir=self._parent_folder()))
        return self._folder

    @property
    def data_folder(self) -> Path:
        """The folder that holds what the server stores; `wipe` removes it."""
        return self.folder / "data"

    @property
    def port(self) -> int:
        """The port, chosen at the first look."""
        if self._port is None:
            self._port = free_port()
        return self._port

    @property
    def pid(self) -> int:
        """The pid of the server's main process, -1 if it was never started."""
        return -1 if self._process is None else self._process.pid

    @property
    def running(self) -> bool:
        """Whether the main process runs (it may not answer yet)."""
        return self._process is not None and self._process.running

    @property
    def started(self) -> bool:
        """Whether there is a process, running or not: from the first start until `close`."""
        return self._process is not None

    @property
    def process(self) -> LocalProcess:
        """The supervised process: for its tree, its freezing and its signals."""
        if self._process is None:
            raise ServerStartError(f"this {self.kind} server was never started; call start() first")
        return self._process

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL for Celery or SQLAlchemy."""

    @abstractmethod
    def ready(self) -> bool:
        """Ask the server once whether it serves requests now. Never raises for one that is down."""

    @abstractmethod
    def _command(self) -> list[str]:
        """The command that runs the server in the foreground. Raises ServerMissingError."""

    def _prepare(self) -> None:  # noqa: B027 - most servers need no preparation
        """Make the data folder ready for a start, if it is not yet."""

    def _environment(self) -> Mapping[str, str]:
        """The environment of the server."""
        return os.environ

    def _parent_folder(self) -> Path | None:
        """The folder to make the server's folder in, None for the usual one for temporary files."""
        return None

    def _run_as(self) -> tuple[int, int] | None:
        """User and group to run as, None for those of this process."""
        return None

    def start(self, timeout: float | None = None) -> None:
        """Start the server and return once it serves requests. One that runs is left alone.

        Args:
            timeout: Seconds it may take, default: `start_seconds`.

        Raises:
            ServerMissingError: The server is not installed.
            ServerStartError: It ended or did not answer in time.
        """
        if self.running:
            return
        fixed_port = self._process is not None
        for attempt in range(_PORT_ATTEMPTS):
            try:
                self._start_once(self.start_seconds if timeout is None else timeout)
            except ServerStartError as exc:
                taken = any(words in str(exc).lower() for words in _PORT_TAKEN) and not fixed_port
                if not taken or attempt == _PORT_ATTEMPTS - 1:
                    raise
                self._port = None
            else:
                return

    def _start_once(self, timeout: float) -> None:
        if self._process is not None:
            self._process.close()
        command = self._command()
        self._prepare()
        self._process = LocalProcess(
            command,
            log_path=self.folder / "log",
            cwd=self.folder,
            env=self._environment(),
            run_as=self._run_as(),
            owned_folder=self.folder,
        )
        self._process.start()
        deadline = time.monotonic() + timeout
        # Somebody else's server on the same port may answer too, until ours notices and ends.
        while not (self._process.listens_on(self.port) and self.ready()):
            code = self._process.poll()
            if code is not None or time.monotonic() >= deadline:
                seen = f"did not answer within {timeout:g} s" if code is None else f"ended with code {code}"
                log = self._process.recent_logs()[-2000:]
                self._process.close()
                self._process = None
                raise ServerStartError(f"the {self.kind} server {seen}; its log ends with:\n{log}")
            time.sleep(0.01)

    def stop(self, timeout: float = 30.0) -> None:
        """Ask the server to end and wait; what is left after `timeout` seconds is killed. The data stay."""
        if self._process is not None:
            self._process.stop(timeout)

    def kill(self) -> None:
        """Kill the server with all its processes (SIGKILL) and wait until they are gone. The data stay."""
        if self._process is not None:
            self._process.close()

    def wipe(self) -> None:
        """Remove the data of a stopped server."""
        shutil.rmtree(self.data_folder, ignore_errors=True)

    def restart(self, *, keep_data: bool = True) -> None:
        """Stop and start on the same port.

        Args:
            keep_data: False lets it come back empty.
        """
        self.stop()
        if not keep_data:
            self.wipe()
        self.start()

    def logs(self) -> str:
        """Return what the server wrote to its log, over all its starts."""
        return "" if self._process is None else self._process.logs()

    def close(self) -> None:
        """Kill the server and remove its folder. Closing twice is fine."""
        self.kill()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
            self._process = None
