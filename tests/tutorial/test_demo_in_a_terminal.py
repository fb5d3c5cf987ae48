"""The demo in a terminal and on other data: it asks, can be interrupted, and leaves nothing behind."""

from __future__ import annotations

import csv
import http.server
import os
import pty
import re
import select
import subprocess
import sys
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from qhana_taskstate.demo.jobs import shipped_data_set

from ..waiting import wait_until
from .readme import ROOT

#: Set in the environment of a demo, and so of all processes that it starts.
_MARK = "DEMO_OF_TEST"


class Terminal:
    """A demo in a terminal of its own, where a person types."""

    def __init__(self, folder: Path, *arguments: str, columns: int = 200) -> None:
        environment = environment_of(folder) | {"TERM": "xterm", "COLUMNS": str(columns)}
        self._pid, self._descriptor = pty.fork()
        if self._pid == 0:
            os.chdir(ROOT)
            command = [sys.executable, "-m", "qhana_taskstate.demo", *arguments]
            os.execve(sys.executable, command, environment)  # noqa: S606 - no shell wanted
        self._seen = b""

    def see(self, text: str, timeout: float = 60) -> None:
        """Wait until the demo has shown a text."""

        def shown() -> bool:
            self._read()
            return text in self.screen

        wait_until(f"the demo shows {text!r}", shown, timeout=timeout)

    @property
    def screen(self) -> str:
        """All that was shown so far, without colours."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self._seen.decode(errors="replace"))

    def type(self, text: str) -> None:
        """Type."""
        os.write(self._descriptor, text.encode())

    def end(self, timeout: float = 60) -> int:
        """Wait for the end and return the exit code."""

        codes: list[int] = []

        def ended() -> bool:
            # Whoever does not read what is shown keeps the demo from going on.
            self._read()
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                codes.append(os.waitstatus_to_exitcode(status))
            return bool(pid)

        wait_until("the demo ends", ended, timeout=timeout)
        return codes[0]

    def _read(self) -> None:
        while select.select([self._descriptor], [], [], 0)[0]:
            try:
                found = os.read(self._descriptor, 65536)
            except OSError:
                # Nobody holds the other end any more.
                return
            if not found:
                return
            self._seen += found


def environment_of(folder: Path) -> dict[str, str]:
    """Return an environment in which the demo brings its own servers, and works below a folder."""
    names = ("CELERY_", "TASKSTATE_", "PYTEST_")
    found = {name: value for name, value in os.environ.items() if not name.startswith(names)}
    return found | {_MARK: str(folder), "TMPDIR": str(folder)}


def processes_of(folder: Path) -> list[str]:
    """Return the command lines of what a demo started and still runs."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(_MARK) == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


@pytest.fixture
def web_server() -> Iterator[str]:
    """URL of a server that offers the files of the demo."""
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(Path(shipped_data_set()).parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_person_is_asked_and_answers_in_the_terminal(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, columns=80)

    terminal.see("how many clusters?")
    for answer in ("many", "100000", "1"):
        terminal.type(f"{answer}\n")
        terminal.see(f"{answer} is not a whole number")
    terminal.type("4\n")
    terminal.see("until Ctrl-C")
    page = re.search(r"the page is at (\S+)", terminal.screen)
    assert page is not None
    with urllib.request.urlopen(page[1]) as answer:  # noqa: S310
        assert b"fail on purpose" in answer.read()
    terminal.type("\x03")
    code = terminal.end(15)

    assert code == 0, terminal.screen
    assert "how many clusters? [3] 4" in terminal.screen
    words = " ".join(terminal.screen.split())
    assert "4 clusters of 342 entities are drawn" in words
    assert re.search(r"fail on purpose .*ERROR", terminal.screen)
    assert "ValueError: row 229 (penguin-229) is refused on purpose" in words
    assert processes_of(tmp_path) == []


def test_the_step_can_be_answered_on_the_page(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path)
    terminal.see("how many clusters?")
    page = re.search(r"the page is at (\S+)/", terminal.screen)
    assert page is not None
    with urllib.request.urlopen(f"{page[1]}/?show=waiting") as answer:  # noqa: S310
        form = re.search(r'href="(http://127[^"]*/demo/[^"]*)"', answer.read().decode())
    assert form is not None
    with urllib.request.urlopen(form[1], data=urllib.parse.urlencode({"k": 5}).encode()) as answer:  # noqa: S310
        assert answer.status == 200
    terminal.see("answered on the page")
    terminal.see("5 clusters of 342 entities are drawn")
    terminal.see("until Ctrl-C")
    terminal.type("\x03")
    assert terminal.end(15) == 0


@pytest.mark.parametrize("moment", ["fail on purpose", "how many clusters?"])
def test_interrupt_stops_everything_and_leaves_nothing(tmp_path: Path, moment: str) -> None:
    terminal = Terminal(tmp_path)
    terminal.see(moment)
    assert any("redis-server" in line for line in processes_of(tmp_path))
    assert any("celery" in line for line in processes_of(tmp_path))

    terminal.type("\x03")

    assert terminal.end(15) == 130
    assert "interrupted; everything is stopped" in terminal.screen
    assert processes_of(tmp_path) == []
    assert list(tmp_path.glob("taskstate-*")) == []


def test_own_file_and_url_are_clustered_and_outputs_are_registered(tmp_path: Path, web_server: str) -> None:
    own = tmp_path / "points.csv"
    with own.open("w", newline="") as file:
        csv.writer(file).writerows([("x", "y"), *((n // 10 * 100 + n % 10, n % 7) for n in range(40))])
    output = tmp_path / "outputs"

    done = _run(tmp_path, str(own), f"{web_server}/penguins.csv", "--answer", "2", "--output", str(output))

    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 clusters of 40 entities are drawn" in done.stdout
    assert "2 clusters of 342 entities are drawn" in done.stdout
    # Both files are clustered and summarised; a further task fails on purpose.
    assert len(re.findall(r"│ SUCCESS ", done.stdout)) == 4
    assert len(re.findall(r"│ ERROR ", done.stdout)) == 1
    assert len(list(output.rglob("clusters.svg"))) == 2
    assert processes_of(tmp_path) == []


def test_source_that_cannot_be_read_ends_with_an_error_and_its_reason(tmp_path: Path) -> None:
    done = _run(tmp_path, str(tmp_path / "missing.csv"))

    assert done.returncode != 0
    assert "missing.csv" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert processes_of(tmp_path) == []


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "qhana_taskstate.demo", *arguments],
        cwd=ROOT,
        env=environment_of(folder),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
