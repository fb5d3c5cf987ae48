"""Runs one command so that nothing of it outlives the process that asked for it.

A script of the standard library alone, started by `process.LocalProcess` as a process of its own:

    python -I -S supervisor.py STATUS_FD PARENT_PID UID GID FOLDER COMMAND...

It is a "child subreaper": whatever the command starts stays below it, also a daemon that detached itself or a
pool child whose parent was killed. When the parent is gone, everything below is killed and FOLDER is removed.
`SIGUSR1` does the same without touching FOLDER.

On STATUS_FD it writes one line `pid N` at the start and one line `exit CODE` (negative: a signal) at the end of
the command.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

#: Ends everything below and then the supervisor.
END_SIGNAL = signal.SIGUSR1
_AWAITED = frozenset({signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, END_SIGNAL})
#: Backs up the signals: how often the parent is looked at, in seconds.
_TICK_SECONDS = 1.0
#: A process that does not go within this time after SIGKILL hangs in the kernel; waiting longer helps nobody.
_KILL_SECONDS = 10.0


def child_pids(pid: int) -> list[int]:
    """List the direct children of a process.

    Args:
        pid: The process to look below. One that is gone has no children.

    Returns:
        Pids in ascending order; zombies that nobody has waited for are left out.
    """
    return sorted(child for child, parent in _parents().items() if parent == pid)


def descendant_pids(pid: int) -> list[int]:
    """List all processes below a process, parents before their children.

    Args:
        pid: The process to look below.

    Returns:
        Pids, without `pid` itself and without zombies.
    """
    parents = _parents()
    found: list[int] = []
    level = [pid]
    while level:
        level = sorted(child for child, parent in parents.items() if parent in level)
        found.extend(level)
    return found


def state_and_parent(pid: int) -> tuple[str, int]:
    """Return the letter that /proc has for the state of a process, and the pid of its parent.

    Raises:
        OSError: There is no such process.
    """
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
        # The command's name may hold spaces and brackets, so the fields count from the last bracket.
        state, parent = stat.read().rpartition(")")[2].split()[:2]
    return state, int(parent)


def _parents() -> dict[int, int]:
    """Map each live process to its parent, from one walk over /proc."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            # A process may end between the listing and the look at it.
            with suppress(OSError):
                state, parent = state_and_parent(int(name))
                if state not in ("Z", "X"):
                    parents[int(name)] = parent
    return parents


def _set_process_option(option: int, value: int) -> None:
    """Call prctl(2). Raises OSError if the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value}) failed")


def _execute(command: list[str]) -> None:
    """Become the command. Raises OSError."""
    os.execvp(command[0], command)  # noqa: S606 - the caller's own command, no shell wanted


def _run_command(command: list[str], uid: int, gid: int, execute: Callable[[list[str]], None]) -> int:
    """Fork and execute the command in a session of its own. Returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        if uid >= 0:
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
        # After the change of user, which clears it. It covers the case that somebody kills the supervisor.
        _set_process_option(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _AWAITED)
        execute(command)
    except OSError as exc:
        os.write(2, f"cannot execute {command[0]}: {exc}\n".encode())
    os._exit(127)


def _kill_all_below() -> dict[int, int]:
    """Kill every descendant with SIGKILL, the ones that are just being born too, and wait for them.

    Returns:
        The exit codes of the direct children by pid.
    """
    codes: dict[int, int] = {}
    deadline = time.monotonic() + _KILL_SECONDS
    while time.monotonic() < deadline:
        codes.update(_reap())
        below = descendant_pids(os.getpid())
        if not below:
            break
        for pid in below:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)
    codes.update(_reap())
    return codes


def _reap() -> dict[int, int]:
    """Collect the children that ended. Returns their exit codes by pid."""
    codes: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return codes
        if pid == 0:
            return codes
        codes[pid] = os.waitstatus_to_exitcode(status)


def _remove(folder: str) -> None:
    """Remove a folder with its content, as far as it goes."""
    for root, folders, files in os.walk(folder, topdown=False):
        for name in files:
            with suppress(OSError):
                os.unlink(os.path.join(root, name))
        for name in folders:
            path = os.path.join(root, name)
            with suppress(OSError):
                if os.path.islink(path):
                    os.unlink(path)
                else:
                    os.rmdir(path)
    with suppress(OSError):
        os.rmdir(folder)


def main(arguments: list[str], execute: Callable[[list[str]], None] = _execute) -> int:
    """Supervise one command until it and everything it started are gone, or the parent is.

    Args:
        arguments: STATUS_FD PARENT_PID UID GID FOLDER COMMAND...; UID -1 keeps the user, an empty FOLDER is none.
        execute: Becomes the command, in a process of its own, or raises OSError.

    Returns:
        The exit code of the supervisor itself.
    """
    status_fd, parent, uid, gid = (int(word) for word in arguments[:4])
    folder, command = arguments[4], arguments[5:]
    os.set_inheritable(status_fd, False)
    signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    _set_process_option(PR_SET_CHILD_SUBREAPER, 1)
    _set_process_option(PR_SET_PDEATHSIG, signal.SIGTERM)

    def report(line: str) -> None:
        # Nobody reads any more once the parent has gone.
        with suppress(OSError):
            os.write(status_fd, f"{line}\n".encode())

    main_pid = _run_command(command, uid, gid, execute)
    report(f"pid {main_pid}")
    while True:
        # The death signal also comes when only the *thread* that started us ends, so the parent's pid decides.
        arrived = signal.sigtimedwait(_AWAITED, _TICK_SECONDS)
        codes = _reap()
        orphaned = os.getppid() != parent
        ending = orphaned or (arrived is not None and arrived.si_signo == END_SIGNAL)
        if ending:
            codes.update(_kill_all_below())
        if main_pid in codes:
            report(f"exit {codes[main_pid]}")
            main_pid = -1
        if orphaned and folder:
            _remove(folder)
        if ending or (main_pid < 0 and not descendant_pids(os.getpid())):
            return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
