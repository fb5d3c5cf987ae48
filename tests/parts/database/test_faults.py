"""Which faults of a database pass by themselves, and which of them say that it is away."""

from __future__ import annotations

import sqlite3

import psycopg
import pymysql
import pytest
from psycopg import errors
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from qhana_taskstate import DatabaseUnavailableError
from qhana_taskstate.database.faults import is_gone, passes

#: What the driver raises, its root error, whether it passes, and whether the database is away.
FAULTS = [
    (errors.AdminShutdown(), psycopg.Error, True, True),
    (errors.CannotConnectNow(), psycopg.Error, True, True),
    (errors.TooManyConnections(), psycopg.Error, True, True),
    (errors.ReadOnlySqlTransaction(), psycopg.Error, True, True),
    (errors.DeadlockDetected(), psycopg.Error, True, False),
    (errors.SerializationFailure(), psycopg.Error, True, False),
    (errors.LockNotAvailable(), psycopg.Error, True, False),
    (errors.DiskFull(), psycopg.Error, True, False),
    (psycopg.InterfaceError("the connection is closed"), psycopg.Error, True, True),
    (errors.UniqueViolation(), psycopg.Error, False, False),
    (errors.UndefinedTable(), psycopg.Error, False, False),
    (errors.InvalidTextRepresentation(), psycopg.Error, False, False),
    (pymysql.err.OperationalError(1213, "Deadlock found"), pymysql.Error, True, False),
    (pymysql.err.OperationalError(1205, "Lock wait timeout exceeded"), pymysql.Error, True, False),
    (pymysql.err.DataError(1406, "Data too long"), pymysql.Error, False, False),
    (sqlite3.OperationalError("database is locked"), sqlite3.Error, True, False),
    (sqlite3.OperationalError("database or disk is full"), sqlite3.Error, True, False),
    (sqlite3.OperationalError("no such table: taskstate_job"), sqlite3.Error, False, False),
    (sqlite3.IntegrityError("UNIQUE constraint failed"), sqlite3.Error, False, False),
]


@pytest.mark.parametrize(("raised", "root", "passing", "gone"), FAULTS, ids=lambda value: type(value).__name__)
def test_fault_of_a_driver(raised: Exception, root: type[Exception], passing: bool, gone: bool) -> None:
    fault = DBAPIError.instance("SELECT 1", {}, raised, root)

    assert isinstance(fault, DBAPIError)
    assert (passes(fault), is_gone(fault)) == (passing, gone)


def test_connection_that_broke_says_that_the_database_is_away() -> None:
    fault = DBAPIError.instance(
        "SELECT 1", {}, psycopg.OperationalError("closed"), psycopg.Error, connection_invalidated=True
    )

    assert passes(fault)
    assert is_gone(fault)


def test_other_faults() -> None:
    assert passes(DatabaseUnavailableError("away"))
    assert is_gone(DatabaseUnavailableError("away"))
    # All connections of this process are in use: that says nothing of the database.
    assert passes(PoolTimeoutError())
    assert not is_gone(PoolTimeoutError())
    assert not passes(ValueError())
    assert not is_gone(ValueError())
