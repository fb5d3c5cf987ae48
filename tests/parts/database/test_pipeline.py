"""Scripts in one message: what they leave, and what happens to the connection when they fail."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from sqlalchemy import Connection, Integer, String, bindparam, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from qhana_taskstate.database.engine import Database
from qhana_taskstate.database.scripts.statement import Answers, Statement
from qhana_taskstate.errors import DatabaseUnavailableError
from qhana_taskstate.store.script import Script
from qhana_taskstate.testing.server import free_port

pytestmark = pytest.mark.databases("postgresql")

MAKE = text("CREATE TABLE number (n INTEGER PRIMARY KEY)")
ADD = text("INSERT INTO number (n) VALUES (:n) RETURNING n").bindparams(bindparam("n", type_=Integer()))
COUNT = text("SELECT count(*) FROM number")
PROCESS = text("SELECT pg_backend_pid()")


@pytest.fixture
def numbers(bare_database: Database) -> Database:
    """A database with a table of numbers."""
    with bare_database.transaction() as connection:
        connection.execute(MAKE)
    return bare_database


def count(database: Database) -> int:
    with database.reading() as connection:
        return int(connection.execute(COUNT).scalar_one())


def process_of_pool(database: Database) -> int:
    with database.reading() as connection:
        return int(connection.execute(PROCESS).scalar_one())


def add(n: int, name: str = "") -> Statement:
    return Statement(ADD, {"n": n}, name=name)


Told = dict[str, list[list[Any]]]


def script(
    *statements: Statement, then: Callable[[Connection], object] | None = None, at_once: bool = False
) -> Script[Told]:
    """Return a script that tells its answers, if nothing is to be done after them."""

    def told(answers: Answers) -> Told:
        return {name: [list(row) for row in answer.rows] for name, answer in answers.items() if name}

    def rest(connection: Connection, answers: Answers) -> Told:
        assert then is not None
        then(connection)
        return told(answers)

    return Script(
        statements=statements, conclude=told if then is None else lambda answers: None, rest=rest, at_once=at_once
    )


def run(database: Database, *statements: Statement, **more: Any) -> Told:
    work = script(*statements, **more)
    if database.pipelines:
        return work.run(database)
    with database.transaction() as connection:
        return work(connection)


@pytest.mark.databases("sqlite", "postgresql")
@pytest.mark.parametrize("at_once", [False, True])
def test_statements_see_what_came_before_and_are_committed_together(numbers: Database, at_once: bool) -> None:
    told = run(numbers, add(1, "one"), add(2), Statement(COUNT, {}, name="count"), at_once=at_once)

    assert told == {"one": [[1]], "count": [[2]]}
    assert count(numbers) == 2


@pytest.mark.databases("sqlite", "postgresql")
def test_statement_runs_for_each_of_several_values(numbers: Database) -> None:
    plain = text("INSERT INTO number (n) VALUES (:n)").bindparams(bindparam("n", type_=Integer()))

    run(numbers, Statement(plain, [{"n": n} for n in range(500)]))

    assert count(numbers) == 500


@pytest.mark.databases("sqlite", "postgresql")
def test_rest_goes_on_in_the_same_transaction(numbers: Database) -> None:
    seen: list[int] = []

    def rest(connection: Connection) -> None:
        seen.append(count(numbers))
        connection.execute(ADD, {"n": 2})
        seen.append(int(connection.execute(COUNT).scalar_one()))

    run(numbers, add(1), then=rest)

    assert (seen, count(numbers)) == ([0, 2], 2)


@pytest.mark.databases("sqlite", "postgresql")
def test_nothing_is_left_if_the_rest_fails(numbers: Database) -> None:
    with pytest.raises(IntegrityError):
        run(numbers, add(1), then=lambda connection: connection.execute(ADD, {"n": 1}))

    assert count(numbers) == 0


@pytest.mark.parametrize("at_once", [False, True])
def test_snapshots_are_those_of_read_committed_whatever_the_database_prefers(numbers: Database, at_once: bool) -> None:
    with numbers.engine.connect() as connection:
        name = connection.exec_driver_sql("SELECT current_database()").scalar_one()
    with numbers.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'")
    numbers.dispose()

    level = Statement(text("SHOW transaction_isolation"), {}, name="level")

    assert run(numbers, level, at_once=at_once)["level"] == [["read committed"]]


def test_connection_serves_the_pool_as_before(numbers: Database) -> None:
    before = process_of_pool(numbers)
    run(numbers, add(1))

    assert process_of_pool(numbers) == before
    with numbers.engine.connect() as connection:
        connection.execute(ADD, {"n": 2})
    assert count(numbers) == 1


@pytest.mark.parametrize("at_once", [False, True])
def test_refusal_is_told_as_by_sqlalchemy_and_leaves_nothing(numbers: Database, at_once: bool) -> None:
    with pytest.raises(IntegrityError, match="duplicate key") as told:
        run(numbers, add(1), add(1), add(2), at_once=at_once)

    assert not told.value.connection_invalidated
    assert count(numbers) == 0
    # Also once the statement is known to the server.
    assert run(numbers, add(1, "one")) == {"one": [[1]]}


@pytest.mark.parametrize("at_once", [False, True])
def test_connection_that_broke_is_told_and_not_used_again(numbers: Database, at_once: bool) -> None:
    process = process_of_pool(numbers)
    ending = text("SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(DBAPIError) as told:
        run(numbers, add(1), Statement(ending, {}), add(2), at_once=at_once)

    assert told.value.connection_invalidated
    assert count(numbers) == 0
    assert process_of_pool(numbers) != process


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("dispose", ["DEALLOCATE ALL", "DISCARD ALL"])
def test_statements_that_something_else_disposed_of_are_sent_anew(
    numbers: Database, dispose: str, at_once: bool
) -> None:
    run(numbers, add(1))
    with numbers.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(dispose)

    counted = run(numbers, add(2, "two"), Statement(COUNT, {}, name="count"), at_once=at_once)
    assert counted == {"two": [[2]], "count": [[2]]}
    assert count(numbers) == 2


class TimeIsUpError(Exception):
    """What a time limit raises at any moment."""


def test_time_limit_strikes_while_the_server_works(numbers: Database) -> None:
    before = process_of_pool(numbers)

    def strike(*_: object) -> None:
        raise TimeIsUpError

    former = signal.signal(signal.SIGUSR1, strike)
    main = threading.main_thread().ident
    assert main is not None
    timer = threading.Timer(0.3, signal.pthread_kill, (main, signal.SIGUSR1))
    timer.start()
    began = time.monotonic()
    try:
        with pytest.raises(TimeIsUpError):
            run(numbers, add(1), Statement(text("SELECT pg_sleep(20)"), {}))
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, former)

    assert time.monotonic() - began < 10
    assert process_of_pool(numbers) != before
    assert count(numbers) == 0


def test_message_larger_than_all_buffers_arrives(numbers: Database) -> None:
    echo = text("SELECT :words").bindparams(bindparam("words", type_=String()))
    words: Sequence[str] = [str(n) * 1000 for n in range(2000)]

    run(numbers, *(Statement(echo, {"words": word}) for word in words), add(1))

    assert count(numbers) == 1


def test_database_that_cannot_be_reached_is_named_without_its_password() -> None:
    database = Database(f"postgresql+psycopg://user:hidden-word@127.0.0.1:{free_port()}/name")

    with pytest.raises(DatabaseUnavailableError, match="name cannot be reached") as told:
        script(add(1)).run(database)

    assert "hidden-word" not in str(told.value)
