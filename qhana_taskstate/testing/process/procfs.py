"""What /proc tells of processes: their children, whether they stand still, and on which ports they listen."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from qhana_taskstate.testing.process import supervisor

#: The state of a listening socket in /proc/net/tcp.
_LISTENING = "0A"
#: States in which nothing runs: stopped, traced, ended.
_STILL = ("T", "t", "Z", "X", "")


def child_pids(pid: int) -> list[int]:
    """List the direct children of a process, without zombies."""
    return supervisor.child_pids(pid)


def descendant_pids(pid: int) -> list[int]:
    """List all processes below a process, parents before their children, without zombies."""
    return supervisor.descendant_pids(pid)


def _state_of(thread: int) -> str:
    """Return the letter that /proc has for the state of a thread; "" for one that is gone."""
    try:
        return supervisor.state_and_parent(thread)[0]
    except OSError:
        return ""


def _threads_of(pid: int) -> list[int]:
    """List the threads of a process, the main one first; none of a process that is gone."""
    try:
        return sorted(int(name) for name in os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return []


def stands_still(pid: int) -> bool:
    """Tell whether no thread of a process runs or will run before it gets SIGCONT."""
    moving = {state for state in map(_state_of, _threads_of(pid)) if state not in _STILL}
    # Between vfork and exec a thread sleeps until its child goes on; a signal reaches it only then (vfork(2)).
    return not moving or (moving == {"D"} and any(_state_of(child) == "T" for child in child_pids(pid)))


def stop(pid: int) -> None:
    """Send SIGSTOP to a process.

    The kernel hands it to one thread, which takes the others along, and asks the one that was named first whether it
    wants it (complete_signal() in Linux 6). A thread in state D would say yes, and let the others run on until it
    wakes up.
    """
    threads = sorted(_threads_of(pid), key=lambda thread: _state_of(thread) == "D")
    with suppress(ProcessLookupError):
        os.kill(threads[0] if threads else pid, signal.SIGSTOP)


def listens_on(pids: Sequence[int], port: int) -> bool:
    """Tell whether one of some processes listens on a TCP port of this machine."""
    sockets = _listening_sockets(port)
    return bool(sockets) and any(target in sockets for pid in pids for target in _open_files(pid))


def _listening_sockets(port: int) -> set[str]:
    """Return the sockets that listen on a port, as the links in /proc/PID/fd name them."""
    listening: set[str] = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        with suppress(OSError):
            for line in table.read_text().splitlines()[1:]:
                _, local, _, state, *rest = line.split()
                if state == _LISTENING and int(local.rpartition(":")[2], 16) == port:
                    listening.add(f"socket:[{rest[5]}]")
    return listening


def _open_files(pid: int) -> Iterator[str]:
    # Processes and their files come and go while they are looked at.
    with suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                yield os.readlink(f"/proc/{pid}/fd/{name}")
