"""The supervised process: what it starts ends with it."""

from __future__ import annotations

import inspect
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from qhana_taskstate.testing.process import LocalProcess, ProcessError, signal_number
from qhana_taskstate.testing.process import local_process as process_module
from tests.waiting import wait_until

#: Starts a child, a child that detaches itself, and then waits.
FAMILY = "sleep 301 & (setsid sleep 302 &) ; echo started; exec sleep 303"

#: Four processes, each with two threads that count, each into a file of its own.
THREADS_THAT_COUNT = """
import itertools, os, pathlib, sys, threading
def count(name):
    fd = os.open(pathlib.Path(sys.argv[1], f"count-{os.getpid()}-{name}"), os.O_WRONLY | os.O_CREAT)
    for number in itertools.count():
        os.pwrite(fd, number.to_bytes(8, "big"), 0)
os.fork(), os.fork()
for name in "ab":
    threading.Thread(target=count, args=(name,), daemon=True).start()
threading.Event().wait()
"""

#: Its main thread waits, as long as nobody reads the pipe, for a child that is about to become another program, and
#: takes no signal meanwhile. (Python's own posix_spawn would hold the other threads, too.)
SPAWN_BESIDE_A_THREAD = """
import ctypes, sys, threading, time
def tick():
    while True:
        print("tick", flush=True)
        time.sleep(0.0005)
for target in (tick, threading.Event().wait):
    threading.Thread(target=target, daemon=True).start()
libc = ctypes.CDLL(None)
actions = ctypes.create_string_buffer(1024)
libc.posix_spawn_file_actions_init(actions)
libc.posix_spawn_file_actions_addopen(actions, 1, sys.argv[1].encode(), 1, 0)
libc.posix_spawn(ctypes.byref(ctypes.c_int()), b"/bin/true", actions, None, (ctypes.c_char_p * 2)(b"true", None), None)
"""


def names(pids: list[int]) -> list[str]:
    """Return what these processes run. The shells that start a family come and go, and count like its members."""
    found = []
    for pid in pids:
        with suppress(OSError):
            found.append(Path(f"/proc/{pid}/comm").read_text().strip())
    return found


def thread_states(process: LocalProcess) -> list[str]:
    """Return the letters of the states of all threads of the process and of all below it."""
    stats = [stat.read_text() for pid in process.descendants() for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
    return [stat.rpartition(")")[2].split()[0] for stat in stats]


@pytest.fixture
def family(tmp_path: Path) -> Iterator[LocalProcess]:
    process = LocalProcess(["sh", "-c", FAMILY], log_path=tmp_path / "log")
    process.start()
    wait_until("three processes run", lambda: names(process.descendants()) == ["sleep"] * 3)
    yield process
    process.close()


def is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_a_started_process_runs_in_a_group_of_its_own(family: LocalProcess) -> None:
    assert family.running
    assert os.getpgid(family.pid) == family.pid


def test_close_ends_children_and_detached_grandchildren(family: LocalProcess) -> None:
    pids = family.descendants()

    family.close()

    assert not [pid for pid in pids if is_alive(pid)]
    assert family.poll() == -signal.SIGKILL
    assert not family.running


def test_a_killed_process_leaves_its_children_alive_until_close(family: LocalProcess) -> None:
    family.send_signal(signal.SIGKILL)

    assert family.wait(10) == -signal.SIGKILL
    assert len(family.descendants()) == 2
    family.close()
    assert family.descendants() == []


def test_stop_returns_the_exit_code(tmp_path: Path) -> None:
    process = LocalProcess(
        ["sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done"], log_path=tmp_path / "log"
    )
    process.start()
    wait_until("the trap is set", lambda: "up" in process.logs())

    assert process.stop(10) == 7


def test_stop_kills_what_does_not_listen(tmp_path: Path) -> None:
    process = LocalProcess(
        ["sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.05; done"], log_path=tmp_path / "log"
    )
    process.start()
    wait_until("the trap is set", lambda: "up" in process.logs())

    assert process.stop(0.2) == -signal.SIGKILL
    assert process.descendants() == []


def test_a_frozen_tree_stands_still_until_it_is_thawed(tmp_path: Path) -> None:
    process = LocalProcess(["sh", "-c", "while :; do echo tick; sleep 0.01; done"], log_path=tmp_path / "log")
    process.start()
    wait_until("it ticks", lambda: "tick" in process.logs())

    process.freeze()
    frozen_at_once = process.frozen
    seen = process.logs()
    assert frozen_at_once
    assert process.running
    process.thaw()

    wait_until("it ticks again", lambda: len(process.logs()) > len(seen))
    assert not process.frozen
    process.close()


def test_a_tree_is_frozen_also_where_a_program_is_just_being_started(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    # The child opens the pipe before it becomes another program, and waits for a reader; its parent waits for it.
    spawn = (
        "import os, sys; opening = (os.POSIX_SPAWN_OPEN, 1, sys.argv[1], os.O_WRONLY, 0); "
        "os.posix_spawn('/bin/true', ['true'], {}, file_actions=[opening])"
    )
    process = LocalProcess([sys.executable, "-c", spawn, str(fifo)], log_path=tmp_path / "log")
    process.start()
    wait_until("the child is there", lambda: len(process.descendants()) == 2)
    frozen_before = process.frozen

    process.freeze()
    assert (frozen_before, process.frozen) == (False, True)
    process.thaw()
    with fifo.open("rb"):
        assert process.wait(10) == 0
    process.close()


def test_logs_go_on_over_restarts_and_recent_logs_do_not(tmp_path: Path) -> None:
    process = LocalProcess(["sh", "-c", "echo hello"], log_path=tmp_path / "log")
    for _ in range(2):
        process.start()
        assert process.wait(10) == 0
        process.close()

    assert process.logs() == "hello\nhello\n"
    assert process.recent_logs() == "hello\n"


def test_a_program_that_does_not_exist_says_so_in_the_log(tmp_path: Path) -> None:
    process = LocalProcess(["/does/not/exist"], log_path=tmp_path / "log")
    process.start()

    assert process.wait(10) == 127
    process.close()
    assert "cannot execute /does/not/exist" in process.logs()


def test_starting_twice_is_refused(family: LocalProcess) -> None:
    with pytest.raises(ProcessError, match="started already"):
        family.start()


def test_the_end_of_the_starting_thread_ends_nothing(tmp_path: Path) -> None:
    process = LocalProcess(["sleep", "304"], log_path=tmp_path / "log")
    thread = threading.Thread(target=process.start)
    thread.start()
    thread.join()

    assert process.wait(0.5) is None
    assert process.running
    process.close()


def test_it_knows_which_ports_are_its_own(family: LocalProcess) -> None:
    with socket.socket() as ours:
        ours.bind(("127.0.0.1", 0))
        ours.listen()
        assert not family.listens_on(ours.getsockname()[1])


@pytest.mark.parametrize("ending", ["os.kill(os.getpid(), 9)", "os._exit(0)", "sys.exit(0)"])
def test_nothing_outlives_the_python_process_however_it_ends(ending: str, tmp_path: Path) -> None:
    folder = tmp_path / "owned"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "file").touch()
    script = f"""
import os, sys, time
from contextlib import suppress
from pathlib import Path
from qhana_taskstate.testing.process import LocalProcess
{inspect.getsource(names)}
log_path, owned_folder = Path({str(tmp_path / "log")!r}), Path({str(folder)!r})
process = LocalProcess(["sh", "-c", {FAMILY!r}], log_path=log_path, owned_folder=owned_folder)
process.start()
while names(pids := process.descendants()) != ["sleep"] * 3:
    time.sleep(0.01)
print(*pids, process._supervisor.pid, flush=True)
{ending}
"""
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, timeout=60, check=False)
    pids = [int(word) for word in done.stdout.split()]
    assert len(pids) == 4

    wait_until("all are gone", lambda: not [pid for pid in pids if is_alive(pid)], timeout=10)
    wait_until("the folder is gone", lambda: not folder.exists(), timeout=10)


@pytest.mark.parametrize(("name", "number"), [(None, 9), ("SIGTERM", 15), ("term", 15), (2, 2), ("15", 15)])
def test_signals_are_read_as_docker_writes_them(name: str | int | None, number: int) -> None:
    assert signal_number(name) == number


def test_an_unknown_signal_is_named() -> None:
    with pytest.raises(ValueError, match="SIGNOPE"):
        signal_number("SIGNOPE")


def test_freeze_returns_once_nothing_of_the_tree_moves_any_more(tmp_path: Path) -> None:
    process = LocalProcess([sys.executable, "-c", THREADS_THAT_COUNT, str(tmp_path)], log_path=tmp_path / "log")
    process.start()
    wait_until("all count", lambda: len(list(tmp_path.glob("count-*"))) == 8)

    for _ in range(100):
        process.freeze()
        states = thread_states(process)
        counts = [path.read_bytes() for path in sorted(tmp_path.glob("count-*"))]
        assert process.frozen
        assert states == ["T"] * len(states)
        assert len(states) >= 10
        assert counts == [path.read_bytes() for path in sorted(tmp_path.glob("count-*"))]
        process.thaw()
    process.close()


def test_freeze_stops_the_other_threads_of_one_that_cannot_be_stopped_now(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    process = LocalProcess([sys.executable, "-c", SPAWN_BESIDE_A_THREAD, str(fifo)], log_path=tmp_path / "log")
    process.start()
    wait_until("the child is there", lambda: len(process.descendants()) == 2)
    wait_until("the thread goes on beside it", lambda: "tick" in process.logs())

    process.freeze()
    assert process.frozen
    seen = process.logs()
    assert sorted(thread_states(process)) == ["D", "T", "T", "T"]
    assert process.logs() == seen
    process.thaw()
    with fifo.open("rb"):
        assert process.wait(10) == 0
    process.close()


def test_freeze_says_what_does_not_stand_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module, "_FREEZE_SECONDS", 0.1)
    monkeypatch.setattr(os, "kill", lambda *_: None)
    process = LocalProcess(["sleep", "60"], log_path=tmp_path / "log")
    process.start()

    with pytest.raises(ProcessError, match=rf"of sleep .*{process.pid}"):
        process.freeze()
    monkeypatch.undo()
    process.close()
