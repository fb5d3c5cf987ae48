"""One local process under supervision: started, watched, signalled, frozen, ended."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from qhana_taskstate.errors import TaskStateError
from qhana_taskstate.testing.process import starting, supervisor
from qhana_taskstate.testing.process.procfs import descendant_pids, listens_on, stands_still, stop

#: How long the supervisor may take to say that the command runs.
_START_SECONDS = 30.0
#: How long a whole tree may take to go after it was killed.
_END_SECONDS = 20.0
#: How long a whole tree may take to stand still; a process that writes to a slow disk stops only after that.
_FREEZE_SECONDS = 30.0
#: How often a tree is looked at until it stands still.
_FREEZE_POLL_SECONDS = 0.001


class ProcessError(TaskStateError, RuntimeError):
    """A local process could not be started, or is not in the state that the call needs."""


class LocalProcess:
    """A command and everything it starts; lives until it is closed or this Python process ends, however it ends.

    The command runs in a session (so a process group) of its own, without standard input. Not for two threads
    at once, except for `poll`, `logs` and the signals.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log_path: Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        run_as: tuple[int, int] | None = None,
        owned_folder: Path | None = None,
    ) -> None:
        """Describe the process; nothing is started yet.

        Args:
            command: Program and arguments.
            log_path: Standard output and error are appended to this file.
            cwd: Working directory, default: this process's.
            env: The whole environment, default: this process's.
            run_as: Numeric user and group to change to (only root can).
            owned_folder: Removed by the supervisor if this Python process dies without closing.
        """
        self.command = tuple(command)
        self.log_path = log_path
        self._cwd = cwd
        self._env = None if env is None else dict(env)
        self._run_as = run_as or (-1, -1)
        self._owned_folder = owned_folder
        self._supervisor: starting.Supervisor | None = None
        self._status_fd = -1
        self._status_text = ""
        self._exit_code: int | None = None
        self._log_start = 0
        self._lock = threading.Lock()
        self.pid = -1

    def start(self) -> None:
        """Start the command and return once it has a pid (it may fail right after; see `poll`).

        Raises:
            ProcessError: It runs already, or the supervisor could not start it.
        """
        if self._supervisor is not None:
            raise ProcessError(f"{self.command[0]} was started already (pid {self.pid}); close it first")
        reading, writing = os.pipe()
        script = Path(supervisor.__file__)
        line = [sys.executable, "-I", "-S", str(script), str(writing), str(os.getpid())]
        line += [str(self._run_as[0]), str(self._run_as[1]), str(self._owned_folder or ""), *self.command]
        try:
            with self.log_path.open("ab") as log:
                self._log_start = log.tell()
                self._supervisor = starting.popen(
                    line,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=self._cwd,
                    env=self._env,
                    pass_fds=(writing,),
                    start_new_session=True,
                )
        except OSError:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        os.set_blocking(reading, False)
        self._status_fd, self._status_text, self._exit_code, self.pid = reading, "", None, -1
        self._await_pid()

    def _await_pid(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while self.pid < 0:
            ended = not self._read_status(max(0.0, deadline - time.monotonic()))
            if self.pid < 0 and (ended or time.monotonic() >= deadline):
                self.close()
                raise ProcessError(f"{self.command[0]} could not be started: {self.recent_logs()[-500:]}")

    def poll(self) -> int | None:
        """Return the exit code of the command (negative: minus the signal), None while it runs."""
        if self._exit_code is None and self._status_fd >= 0:
            self._read_status(0)
        return self._exit_code

    @property
    def running(self) -> bool:
        """Whether the command itself runs (a frozen one counts as running)."""
        return self._supervisor is not None and self.pid > 0 and self.poll() is None

    @property
    def frozen(self) -> bool:
        """Whether the command is stopped by SIGSTOP."""
        return self.running and stands_still(self.pid)

    def wait(self, timeout: float) -> int | None:
        """Wait at most `timeout` seconds for the end of the command. Returns its exit code, None if it still runs."""
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            left = deadline - time.monotonic()
            if left <= 0 or self._status_fd < 0:
                return None
            self._read_status(min(left, 1.0))
        return self._exit_code

    def send_signal(self, number: int) -> None:
        """Send a signal to the command alone; one that has ended is left in peace."""
        if self.running:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def descendants(self) -> list[int]:
        """List what lives of the tree: the command's pid first if it runs, then all that was started below it."""
        if self._supervisor is None or self._supervisor.poll() is not None:
            return []
        return descendant_pids(self._supervisor.pid)

    def listens_on(self, port: int) -> bool:
        """Whether a process of the tree listens on a TCP port of this machine."""
        return listens_on(self.descendants(), port)

    def freeze(self) -> None:
        """Stop the whole tree with SIGSTOP, as a machine does that hangs. Returns once nothing of it moves any more.

        Raises:
            ProcessError: Some of it did not stand still in time. The rest does, until `thaw`.
        """
        deadline = time.monotonic() + _FREEZE_SECONDS
        stopped: list[int] = []
        moving: list[int] = []
        # A signal takes effect after kill() has returned, and until then children may still be born.
        while (fresh := [pid for pid in self.descendants() if pid not in stopped]) or moving:
            for pid in fresh:
                stop(pid)
            stopped += fresh
            moving = [pid for pid in stopped if not stands_still(pid)]
            if moving and time.monotonic() >= deadline:
                raise ProcessError(
                    f"of {self.command[0]} the processes {moving} did not stand still within {_FREEZE_SECONDS} s;"
                    " thaw it and try again"
                )
            time.sleep(_FREEZE_POLL_SECONDS)

    def thaw(self) -> None:
        """Let a frozen tree go on."""
        for pid in self.descendants():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def stop(self, timeout: float, number: int = signal.SIGTERM) -> int | None:
        """Ask the command to end, and kill what is left of the tree after `timeout` seconds or after its end.

        Returns:
            The exit code of the command, None if it was never started.
        """
        if self._supervisor is None:
            return self._exit_code
        self.send_signal(number)
        self.wait(timeout)
        self.close()
        return self._exit_code

    def close(self) -> None:
        """Kill the whole tree with SIGKILL and wait until nothing of it is left. Closing twice is fine."""
        if self._supervisor is None:
            return
        with suppress(ProcessLookupError):
            self._supervisor.send_signal(supervisor.END_SIGNAL)
        try:
            self._supervisor.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._supervisor.kill()
            self._supervisor.wait()
        self._read_status(0)
        os.close(self._status_fd)
        self._status_fd = -1
        self._supervisor = None

    def logs(self) -> str:
        """Return all that the command wrote to standard output and error, over all its starts."""
        try:
            return self.log_path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def recent_logs(self) -> str:
        """Return what the command wrote since its last start."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(self._log_start)
                return log.read().decode("utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def _read_status(self, timeout: float) -> bool:
        """Take in what the supervisor wrote, waiting for it at most `timeout` seconds.

        Returns:
            False once the supervisor has closed its end.
        """
        watched = select.poll()
        watched.register(self._status_fd, select.POLLIN)
        watched.poll(timeout * 1000)
        with self._lock:
            try:
                chunk = os.read(self._status_fd, 4096)
            except BlockingIOError:
                return True
            self._status_text += chunk.decode()
            *lines, self._status_text = self._status_text.split("\n")
            for line in lines:
                word, _, number = line.partition(" ")
                if word == "pid":
                    self.pid = int(number)
                elif word == "exit":
                    self._exit_code = int(number)
            if not chunk and self._exit_code is None and self.pid > 0:
                # Somebody killed the supervisor, and the kernel its command with it.
                self._exit_code = -signal.SIGKILL
            return bool(chunk)
