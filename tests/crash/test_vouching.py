"""Workers on another machine prove by a lock in the database that they live."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from sqlalchemy import make_url, text

from qhana_taskstate.database.engine import Database
from qhana_taskstate.errors import DatabaseUnavailableError
from qhana_taskstate.liveness import advisory_lock
from qhana_taskstate.liveness.advisory_lock import Voucher, held, key_of
from qhana_taskstate.upkeep import round as upkeep_round
from tests.crash.conftest import SOON, Site
from tests.crash.test_lost_work import status, work
from tests.waiting import wait_until

pytestmark = pytest.mark.databases("postgresql")

KEY = -(2**62) - 12345

#: What PostgreSQL and poolers say of the process at the other end: BackendKeyData of length 12.
_BACKEND = b"K\x00\x00\x00\x0c"


@pytest.fixture
def database(taskstate_database_url: str) -> Iterator[Database]:
    database = Database(taskstate_database_url)
    yield database
    database.dispose()


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the observers of this process as blind as those on another machine."""
    monkeypatch.setattr(upkeep_round, "is_alive", lambda *_: False)


def holders(database: Database) -> list[int]:
    """Return the server's processes that hold advisory locks for somebody."""
    query = (
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    with database.reading() as connection:
        return sorted(connection.execute(text(query)).scalars())


def is_held(database: Database, key: int) -> bool:
    return database.read(lambda connection: held(connection, {key})) == {key}


def test_key_is_a_signed_number_of_64_bits_that_differs_between_processes() -> None:
    keys = {key_of("host", pid, started) for pid in range(1, 20) for started in (1.0, 2.0)}

    assert len(keys) == 38
    assert all(key is not None and -(2**63) <= key < 2**63 for key in keys)
    assert key_of("host", 1, 7.0) == key_of("host", 1, 7)
    assert key_of("host", 1, None) is key_of(None, 1, 1.0) is key_of("host", None, 1.0) is None


@pytest.mark.usefixtures("elsewhere")
def test_task_that_holds_the_interpreter_is_not_given_up_from_another_machine(site: Site) -> None:
    site.worker()
    task = site.taskstate.start(work(site, "holds_the_interpreter", str(site.folder), 4 * SOON["lost_after_seconds"]))
    lost = []

    def ended() -> bool:
        found = site.taskstate.upkeep()
        lost.append(found.lost if found else 0)
        return status(task.id) != "PENDING"

    wait_until("the task has ended", ended, timeout=30, interval=0.2)

    assert (status(task.id), sum(lost)) == ("SUCCESS", 0)
    assert site.executions(task.id) == [("holds_the_interpreter", "SUCCESS", 0)]


@pytest.mark.usefixtures("elsewhere")
def test_killed_worker_gives_its_lock_up_and_the_loss_is_settled_from_another_machine(site: Site) -> None:
    worker = site.worker()
    task = site.taskstate.start(work(site, "waits", str(site.folder)))
    site.begun()
    assert len(holders(site.taskstate.database)) == 1

    worker.kill_tree()
    wait_until("the lock is gone", lambda: not holders(site.taskstate.database), timeout=10)

    def settled() -> bool:
        site.taskstate.upkeep()
        return status(task.id) == "ERROR"

    wait_until("the loss is settled", settled, timeout=15, interval=0.2)


def test_lock_whose_connection_broke_is_taken_again(site: Site) -> None:
    site.worker()
    task = site.taskstate.start(work(site, "waits", str(site.folder)))
    site.begun()
    (first,) = holders(site.taskstate.database)

    with site.taskstate.database.transaction() as connection:
        connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": first})
    wait_until(
        "the lock is held again",
        lambda: [pid for pid in holders(site.taskstate.database) if pid != first],
        timeout=15,
    )

    site.go()
    assert site.taskstate.wait(task.id, timeout=15).status == "SUCCESS"


def test_pool_child_that_reports_with_an_open_write_has_two_connections(site: Site) -> None:
    worker = site.worker()
    task = site.taskstate.start(work(site, "reports_with_a_write_open", str(site.folder)))
    site.begun()
    port = make_url(site.environment["TASKSTATE_DATABASE_URL"]).port
    (child,) = (psutil.Process(pid) for pid in worker.child_pids())
    beats = []

    def seen_often() -> bool:
        found = [link for link in child.net_connections(kind="tcp") if getattr(link.raddr, "port", None) == port]
        beats.append(len([link for link in found if link.status == psutil.CONN_ESTABLISHED]))
        return len(beats) >= 100

    wait_until("it was looked at for some beats and looks", seen_often, timeout=20, interval=0.02)
    site.go()

    assert site.taskstate.wait(task.id, timeout=15).status == "SUCCESS"
    assert max(beats) == 2


def test_lock_is_held_until_it_is_given_up(database: Database) -> None:
    voucher = Voucher()
    voucher.stand(database, KEY)
    assert is_held(database, KEY)
    voucher.stand(database, KEY)
    assert not is_held(database, KEY + 1)
    assert len(holders(database)) == 1

    voucher.close()

    wait_until("the lock is gone", lambda: not is_held(database, KEY), timeout=5)


def test_lock_is_had_as_soon_as_who_holds_it_lets_go(database: Database) -> None:
    before, voucher = Voucher(), Voucher()
    before.stand(database, KEY)
    voucher.stand(database, KEY)
    before.close()

    def had() -> bool:
        voucher.stand(database, KEY)
        return is_held(database, KEY)

    wait_until("the lock is had", had, timeout=5)
    voucher.close()


def test_session_notices_soon_that_the_machine_at_its_other_end_is_gone(database: Database) -> None:
    voucher = Voucher()
    voucher.stand(database, KEY)
    connection = voucher.connection
    assert connection is not None

    names = ("tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count", "tcp_user_timeout")
    shown = [connection.execute(text(f"SHOW {name}")).scalar_one() for name in names]
    voucher.close()

    assert shown == ["10", "5", "3", "25000"]


def test_database_that_is_away_is_no_fault_of_the_one_who_vouches() -> None:
    database = Database("postgresql+psycopg://nobody@127.0.0.1:1/none")
    voucher = Voucher()

    voucher.stand(database, KEY)

    assert voucher.connection is None


def test_whoever_needs_the_lock_first_waits_for_whoever_takes_it_just_now() -> None:
    began, may_fail = threading.Event(), threading.Event()
    voucher = Voucher()

    def connects_slowly() -> None:
        began.set()
        assert may_fail.wait(20)
        raise DatabaseUnavailableError("away")

    slow: Any = SimpleNamespace(dialect="postgresql", apart=connects_slowly)
    first, second = (threading.Thread(target=voucher.stand_first, args=(slow, KEY)) for _ in range(2))
    first.start()
    assert began.wait(20)
    assert not voucher.tried
    second.start()
    second.join(0.1)
    waits = second.is_alive()
    may_fail.set()
    first.join()
    second.join()

    assert waits
    assert voucher.tried


def test_no_lock_is_taken_through_a_pooler(database: Database, taskstate_database_url: str) -> None:
    with _Pooler(taskstate_database_url) as url:
        pooled = Database(url)
        voucher = Voucher()
        voucher.stand(pooled, KEY)
        voucher.stand(pooled, KEY)

        assert voucher.connection is None
        assert holders(database) == []
        pooled.dispose()


def test_no_lock_is_taken_if_the_driver_does_not_tell_whom_it_talks_to(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(advisory_lock, "_told_by_driver", lambda _: None)
    voucher = Voucher()

    voucher.stand(database, KEY)

    assert voucher.connection is None
    assert holders(database) == []


def test_lock_of_a_killed_process_does_not_live_on_in_a_process_that_it_forked(
    database: Database, taskstate_database_url: str
) -> None:
    code = (
        "import os, sys, time\n"
        "from qhana_taskstate.database.engine import Database\n"
        "from qhana_taskstate.liveness.advisory_lock import Voucher\n"
        "voucher, database = Voucher(), Database(sys.argv[1])\n"
        "voucher.stand(database, int(sys.argv[2]))\n"
        "child = os.fork()\n"
        "if child:\n"
        "    print(child, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, taskstate_database_url, str(KEY)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    try:
        assert is_held(database, KEY)
        parent.kill()
        wait_until("the lock is gone", lambda: not is_held(database, KEY), timeout=10)
        assert psutil.pid_exists(child)
    finally:
        os.kill(child, signal.SIGKILL)
        parent.kill()
        parent.wait()
        parent.stdout.close()


def test_parent_keeps_its_lock_when_its_forked_child_ends(database: Database) -> None:
    voucher = Voucher()
    voucher.stand(database, KEY)
    pid = os.fork()
    if pid == 0:
        os._exit(1 if voucher.connection is not None else 0)

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    first = holders(database)
    voucher.stand(database, KEY)
    assert (holders(database), is_held(database, KEY)) == (first, True)
    voucher.close()


class _Pooler:
    """Stands before a server as PgBouncer does: it gives a process id of its own invention.

    Args:
        url: URL of a database on the server.
    """

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self._server = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> str:
        self._run(self._accept)
        return self._url.set(port=self._server.getsockname()[1]).render_as_string(hide_password=False)

    def __exit__(self, *_: object) -> None:
        for link in [self._server, *self._sockets]:
            # Wakes whoever waits for it.
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
            link.close()
        for thread in self._threads:
            thread.join(5)

    def _run(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            server = socket.create_connection((self._url.host, self._url.port))
            self._sockets += [client, server]
            self._run(self._pass_on, client, server, False)
            self._run(self._pass_on, server, client, True)

    def _pass_on(self, source: socket.socket, target: socket.socket, rewrite: bool) -> None:
        try:
            while data := source.recv(65536):
                at = data.find(_BACKEND) if rewrite else -1
                if at >= 0:
                    start = at + len(_BACKEND)
                    data = data[:start] + (4242).to_bytes(4, "big") + data[start + 4 :]
                    rewrite = False
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return
