"""Which faults of a database are worth another try, and which are not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from celery import Celery
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from qhana_taskstate import TaskState
from qhana_taskstate.recording.execution_recorder import ExecutionRecorder

pytestmark = pytest.mark.mariadb


@pytest.fixture
def recorder(migrated_database_url: str) -> Iterator[ExecutionRecorder]:
    taskstate = TaskState(Celery("client", set_as_current=False), database_url=migrated_database_url)
    yield taskstate.recorder
    taskstate.close()


def fails_first(statement: str, times: int = 1) -> Callable[[Connection], int]:
    """Return work whose first tries fail with what the database says to a statement."""
    tries = 0

    def work(connection: Connection) -> int:
        nonlocal tries
        tries += 1
        if tries <= times:
            connection.execute(text(statement))
        return tries

    return work


@pytest.mark.databases("postgresql")
@pytest.mark.parametrize(
    "state",
    [
        pytest.param("40001", id="serialisation failure"),
        pytest.param("40P01", id="deadlock"),
        pytest.param("53300", id="too many connections"),
        pytest.param("55P03", id="lock not available"),
        pytest.param("57P01", id="the server shuts down"),
        pytest.param("25006", id="read-only standby"),
    ],
)
def test_postgresql_fault_that_passes_is_tried_again(recorder: ExecutionRecorder, state: str) -> None:
    raised = f"DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{state}'; END $$"

    assert recorder.write(fails_first(raised, times=2)) == 3


@pytest.mark.databases("mariadb")
@pytest.mark.parametrize(
    "number",
    [
        pytest.param(1213, id="deadlock"),
        pytest.param(1205, id="lock wait timeout"),
        pytest.param(1040, id="too many connections"),
        pytest.param(1020, id="record has changed"),
    ],
)
def test_mariadb_fault_that_passes_is_tried_again(recorder: ExecutionRecorder, number: int) -> None:
    raised = f"SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = {number}, MESSAGE_TEXT = 'no'"

    assert recorder.write(fails_first(raised, times=2)) == 3


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT nothing FROM no_such_table",
        "SELEKT 1",
        "INSERT INTO taskstate_hold (id, task_id) VALUES (NULL, NULL)",
    ],
)
def test_fault_that_stays_is_told_at_once(recorder: ExecutionRecorder, statement: str) -> None:
    tries = 0

    def work(connection: Connection) -> None:
        nonlocal tries
        tries += 1
        connection.execute(text(statement))

    with pytest.raises(DBAPIError):
        recorder.write(work)

    assert tries == 1


@pytest.mark.databases("postgresql", "mariadb")
def test_real_deadlock_is_survived_by_both(recorder: ExecutionRecorder) -> None:
    with recorder.database.transaction() as connection:
        connection.execute(text("CREATE TABLE pair (id INTEGER PRIMARY KEY, v INTEGER NOT NULL)"))
        connection.execute(text("INSERT INTO pair VALUES (1, 0), (2, 0)"))
    both = threading.Barrier(2, timeout=20)
    tries: list[int] = []

    def change(first: int, second: int) -> None:
        waited = False

        def work(connection: Connection) -> None:
            nonlocal waited
            tries.append(first)
            change = text("UPDATE pair SET v = v + 1 WHERE id = :id")
            connection.execute(change, {"id": first})
            if not waited:
                waited = True
                both.wait()
            connection.execute(change, {"id": second})

        recorder.write(work)

    threads = [threading.Thread(target=change, args=order) for order in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    with recorder.database.reading() as connection:
        assert list(connection.execute(text("SELECT v FROM pair ORDER BY id")).scalars()) == [2, 2]
    assert len(tries) == 3
