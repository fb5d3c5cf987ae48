"""Whether a process is alive, by its id, start time and machine."""

from __future__ import annotations

import functools
import os
from pathlib import Path


@functools.cache
def this_host() -> str:
    """Return a name for the machine and process namespace in which process ids of this process mean something."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return f"{os.uname().nodename}/{_boot_id()}/{namespace}"


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def started_at(pid: int) -> float | None:
    """Return when a process started, in clock ticks since the machine did (Linux, proc(5)).

    Returns:
        None if there is no such process, if it is a zombie, or where that is not told.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return None if fields[0] in (b"Z", b"X") else float(fields[19])
    except (OSError, ValueError, IndexError):
        return None


def is_gone(host: str | None, pid: int | None, started: float | None) -> bool:
    """Tell whether a process is known to be dead, which is more than not being known to be alive.

    Args:
        host: What `this_host` said where it ran.
        pid: Its process id.
        started: What `started_at` said of it.

    Returns:
        False if it cannot be seen from here, be it only since it is another user's.
    """
    if host != this_host() or pid is None or started is None or not Path("/proc/self/stat").exists():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        # It is another user's: its files may be hidden (proc(5), `hidepid`).
        return False
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return fields[0] in (b"Z", b"X") or float(fields[19]) != started
    except (OSError, ValueError, IndexError):
        return False


def is_alive(host: str | None, pid: int | None, started: float | None) -> bool:
    """Tell whether a process is known to be alive.

    Args:
        host: What `this_host` said where it runs.
        pid: Its process id.
        started: What `started_at` said of it.

    Returns:
        False if it is dead, if another process has its id by now, or if it cannot be seen from here.
    """
    return host == this_host() and pid is not None and started is not None and started_at(pid) == started
