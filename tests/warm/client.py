"""Asks the warm interpreter of this process for supervised processes."""

from __future__ import annotations

import atexit
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any, Final

from qhana_taskstate.testing.process.starting import Supervisor
from qhana_taskstate.testing.process.supervisor import END_SIGNAL

#: The modules that are run so; what others need is not there.
_WARM: Final = re.compile(r"celery$|tests\.apps\.")
#: Pools that replace the standard library before anything else is imported.
_PATCHING: Final = frozenset(("gevent", "eventlet"))
#: Variables of Python that a fork follows.
_FOLLOWED: Final = ("PYTHONPATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE")


class WarmSupervisor:
    """A supervisor that is no child of this process."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._descriptor = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """Return 0 once it has ended; nobody knows its exit code."""
        ended = select.poll()
        ended.register(self._descriptor, select.POLLIN)
        return 0 if ended.poll(0) else None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises subprocess.TimeoutExpired."""
        ended = select.poll()
        ended.register(self._descriptor, select.POLLIN)
        if not ended.poll(None if timeout is None else timeout * 1000):
            raise subprocess.TimeoutExpired(["supervisor"], timeout or 0)
        return 0

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, number)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)

    def __del__(self) -> None:
        os.close(self._descriptor)


class _Interpreter:
    """The one of this process, started at its first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: socket.socket | None = None
        self._pid = 0

    def _connected(self) -> socket.socket:
        if self._connection is None or self._pid != os.getpid():
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            script = Path(__file__).with_name("interpreter.py")
            environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
            process = subprocess.Popen(
                [sys.executable, str(script), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                env={**environment, "PYTHONUNBUFFERED": "1"},
                pass_fds=(theirs.fileno(),),
            )
            theirs.close()
            self._connection, self._pid = ours, os.getpid()
            atexit.register(_end, process, ours)
        return self._connection

    def fork(self, message: dict[str, Any], descriptors: Sequence[int]) -> int:
        """Return the pid of a new supervisor."""
        with self._lock:
            connection = self._connected()
            socket.send_fds(connection, [json.dumps(message).encode()], descriptors)
            return int(connection.recv(32))


def _end(process: subprocess.Popen[bytes], connection: socket.socket) -> None:
    connection.close()
    process.wait(10)


_interpreter: Final = _Interpreter()


def popen(line: list[str], *, env: Mapping[str, str] | None, cwd: Path | None, **options: Any) -> Supervisor:
    """Start a supervisor, as `LocalProcess` asks for it: a warm one where its command may be."""
    _python, _isolated, _no_site, _script, status, _parent, *supervised = line
    environment = dict(os.environ if env is None else env)
    if not _may_be_warm(supervised[3:], environment):
        return subprocess.Popen(line, env=env, cwd=cwd, **options)
    message = {"supervised": supervised, "environment": environment, "folder": str(cwd or os.getcwd())}
    output = options["stdout"].fileno()
    error = output if options["stderr"] == subprocess.STDOUT else options["stderr"].fileno()
    return WarmSupervisor(_interpreter.fork(message, [int(status), output, error]))


def run(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[Any]:
    """Do what `subprocess.run` does; warm where the command may be. Knows no `input`."""
    environment = dict(options.get("env") or os.environ)
    if not _may_be_warm(command, environment):
        return subprocess.run(command, **options)
    captured = options.get("capture_output", False)
    with ExitStack() as stack:
        files = {
            name: stack.enter_context(tempfile.TemporaryFile())
            for name in ("stdout", "stderr")
            if captured or options.get(name) == subprocess.PIPE
        }
        error = options.get("stderr")
        output = files.get("stdout", sys.__stdout__)
        descriptors = {
            "stdout": _descriptor(output),
            "stderr": _descriptor(output if error == subprocess.STDOUT else files.get("stderr", sys.__stderr__)),
        }
        code = _supervised(command, environment, options, descriptors)
        said = {name: _content(file, bool(options.get("text"))) for name, file in files.items()}
    done = subprocess.CompletedProcess(command, code, said.get("stdout"), said.get("stderr"))
    if options.get("check"):
        done.check_returncode()
    return done


def _supervised(
    command: Sequence[str], environment: dict[str, str], options: Mapping[str, Any], descriptors: Mapping[str, int]
) -> int:
    """Run to the end; returns the exit code."""
    reading, writing = os.pipe()
    message = {
        "supervised": ["-1", "-1", "", *command],
        "environment": environment,
        "folder": str(options.get("cwd") or os.getcwd()),
    }
    with open(reading, "rb", closefd=True) as status:
        try:
            pid = _interpreter.fork(message, [writing, descriptors["stdout"], descriptors["stderr"]])
        finally:
            os.close(writing)
        supervisor = WarmSupervisor(pid)
        timeout = options.get("timeout")
        deadline = None if timeout is None else time.monotonic() + timeout
        lines = b""
        while b"exit " not in lines or not lines.endswith(b"\n"):
            ready = select.poll()
            ready.register(status, select.POLLIN)
            if not ready.poll(None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000):
                supervisor.send_signal(END_SIGNAL)
                raise subprocess.TimeoutExpired(command, timeout or 0)
            chunk = os.read(status.fileno(), 4096)
            if not chunk:
                return -signal.SIGKILL
            lines += chunk
    return int(lines.split()[-1])


def _descriptor(stream: Any) -> int:
    return int(stream.fileno())


def _content(file: IO[bytes], text: bool) -> str | bytes:
    file.seek(0)
    content = file.read()
    return content.decode().replace("\r\n", "\n") if text else content


def _may_be_warm(command: Sequence[str], environment: Mapping[str, str]) -> bool:
    if os.environ.get("TASKSTATE_COLD_PROCESSES"):
        return False
    match list(command[:3]):
        case [sys.executable, "-m", module] if _WARM.match(module):
            pass
        case [sys.executable, "-c", _]:
            pass
        case _:
            return False
    if not _PATCHING.isdisjoint(command) or _brings_another_package(environment):
        return False
    ours = {key: value for key, value in os.environ.items() if key.startswith("PYTHON") and key not in _FOLLOWED}
    theirs = {key: value for key, value in environment.items() if key.startswith("PYTHON") and key not in _FOLLOWED}
    return ours == theirs


def _brings_another_package(environment: Mapping[str, str]) -> bool:
    """Tell whether the path has a copy of the package that is not the one which the interpreter has imported."""
    folders = [Path(folder) for folder in environment.get("PYTHONPATH", "").split(os.pathsep) if folder]
    root = Path(__file__).parents[2]
    return any((folder / "qhana_taskstate").is_dir() and folder.resolve() != root for folder in folders)
