"""Several statements in one round trip: what they leave, and what happens to the connection when they fail."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError

from qhana_taskstate.database.engine import Database
from qhana_taskstate.errors import DatabaseUnavailableError
from qhana_taskstate.testing.server import free_port

pytestmark = pytest.mark.databases("postgresql")

MAKE = text("CREATE TABLE number (n INTEGER PRIMARY KEY)")
ADD = text("INSERT INTO number (n) VALUES (:n) RETURNING n")
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


def test_statements_see_what_came_before_and_are_committed_together(numbers: Database) -> None:
    with numbers.batch() as batch:
        assert batch.send(ADD, COUNT, values={"n": 1}) == [[(1,)], [(1,)]]
        assert count(numbers) == 0
        assert batch.send(ADD, values={"n": 2}, commit=True) == [[(2,)]]
        assert count(numbers) == 2
        assert batch.send(COUNT, values={}, commit=True) == [[(2,)]]


def test_what_was_not_committed_is_rolled_back(numbers: Database) -> None:
    with numbers.batch() as batch:
        batch.send(ADD, values={"n": 1})

    assert count(numbers) == 0


def test_single_statement_is_a_transaction_of_its_own(numbers: Database) -> None:
    with numbers.batch() as batch:
        assert batch.run(ADD, {"n": 1}) == [(1,)]
        assert count(numbers) == 1


def test_snapshots_are_those_of_read_committed_whatever_the_database_prefers(numbers: Database) -> None:
    with numbers.batch() as batch:
        batch.run(text("SELECT set_config('default_transaction_isolation', 'repeatable read', false)"), {})
        assert batch.send(text("SHOW transaction_isolation"), values={}) == [[("read committed",)]]
        assert batch.send(COUNT, values={}) == [[(0,)]]
        with numbers.transaction() as connection:
            connection.execute(ADD, {"n": 1})
        assert batch.send(COUNT, values={}) == [[(1,)]]


def test_connection_serves_the_pool_as_before(numbers: Database) -> None:
    before = process_of_pool(numbers)
    with numbers.batch() as batch:
        batch.send(ADD, values={"n": 1}, commit=True)

    assert process_of_pool(numbers) == before
    with numbers.engine.connect() as connection:
        connection.execute(ADD, {"n": 2})
    assert count(numbers) == 1


def test_refusal_is_told_as_by_sqlalchemy_and_leaves_nothing(numbers: Database) -> None:
    with pytest.raises(IntegrityError, match="duplicate key") as told, numbers.batch() as batch:
        batch.send(ADD, ADD, values={"n": 1}, commit=True)

    assert not told.value.connection_invalidated
    assert count(numbers) == 0


def test_connection_that_broke_is_told_and_not_used_again(numbers: Database) -> None:
    with pytest.raises(OperationalError) as told, numbers.batch() as batch:
        ((process,),) = batch.run(PROCESS, {})
        with numbers.transaction() as connection:
            connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": process})
        batch.send(ADD, values={"n": 1}, commit=True)

    assert told.value.connection_invalidated
    assert count(numbers) == 0


class TimeIsUpError(BaseException):
    """What a time limit raises at any moment."""


def test_connection_of_an_interrupted_batch_is_not_used_again(numbers: Database) -> None:
    before = process_of_pool(numbers)
    with pytest.raises(TimeIsUpError), numbers.batch() as batch:
        batch.send(ADD, values={"n": 1})
        raise TimeIsUpError

    assert process_of_pool(numbers) != before
    assert count(numbers) == 0


def test_database_that_cannot_be_reached_is_named_without_its_password() -> None:
    database = Database(f"postgresql+psycopg://user:hidden-word@127.0.0.1:{free_port()}/name")

    with pytest.raises(DatabaseUnavailableError, match="name cannot be reached") as told, database.batch():
        pass

    assert "hidden-word" not in str(told.value)


@pytest.mark.databases("sqlite")
def test_other_drivers_do_not_send_batches(bare_database: Database) -> None:
    assert not bare_database.batches
