"""Short transactions in few round trips, where the driver can send several statements at once.

Each statement keeps a snapshot of its own (PostgreSQL, READ COMMITTED). What is saved is the waiting in between, and
what SQLAlchemy does around each statement, which costs more than the statement itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Dialect, Engine, Executable
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import PoolProxiedConnection

#: The driver that knows libpq's pipeline mode, as SQLAlchemy calls it.
_PIPELINING: Final = "psycopg"

Row = tuple[Any, ...]


def can_batch(engine: Engine) -> bool:
    """Tell whether `batch` works on an engine."""
    # libpq knows it since version 14.
    return engine.dialect.driver == _PIPELINING and bool(engine.dialect.loaded_dbapi.Pipeline.is_supported())


class Batch:
    """A connection on which statements are sent several at a time. Made by `batch`.

    The values of the rows are the driver's own, and no event of SQLAlchemy tells of the statements.
    """

    def __init__(self, driver: Any, dialect: Dialect) -> None:
        self._driver = driver
        self._dialect = dialect
        self._begun = False

    def run(self, statement: Executable, values: Mapping[str, Any]) -> list[Row]:
        """Run one statement in a transaction of its own.

        Args:
            statement: Returns rows, and takes its values by name. It is built once for the whole process.
            values: Its values; more than it takes do no harm.
        """
        rows: list[Row] = self._execute(statement, values).fetchall()
        return rows

    def send(self, *statements: Executable, values: Mapping[str, Any], commit: bool = False) -> list[list[Row]]:
        """Run statements in order, in one transaction and one round trip.

        Args:
            statements: As for `run`.
            values: The values of all of them.
            commit: Whether to end the transaction; otherwise the next call goes on in it.

        Returns:
            The rows of each statement.
        """
        with self._driver.pipeline():
            if not self._begun:
                # By ourselves: for the answer to its own BEGIN psycopg waits even in a pipeline (3.3).
                self._driver.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
            cursors = [self._execute(statement, values) for statement in statements]
            if commit:
                self._driver.execute("COMMIT")
        self._begun = not commit
        return [cursor.fetchall() for cursor in cursors]

    def _execute(self, statement: Executable, values: Mapping[str, Any]) -> Any:
        prepared = _prepare(statement, self._dialect)
        return self._driver.execute(prepared.text, prepared.parameters(values))


@contextmanager
def batch(engine: Engine, pooled: PoolProxiedConnection) -> Iterator[Batch]:
    """Send batches on a connection from the pool of an engine for which `can_batch` holds; it is given back at the end.

    What was not committed is rolled back.

    Raises:
        sqlalchemy.exc.DBAPIError: What the database refuses.
    """
    error = engine.dialect.loaded_dbapi.Error
    driver: Any = pooled.driver_connection
    try:
        driver.autocommit = True
        yield Batch(driver, engine.dialect)
        driver.rollback()
        driver.autocommit = False
    except error as exc:
        broken = engine.dialect.is_disconnect(exc, driver, None)
        # Such faults are rare: a new connection is the surest way back to a clean one.
        pooled.invalidate(exc)
        raise _as_told(exc, engine, broken=broken) from exc
    except BaseException as exc:
        # A time limit may strike between two halves of a message.
        pooled.invalidate(exc)
        raise
    finally:
        pooled.close()


def _as_told(exc: Exception, engine: Engine, *, broken: bool) -> BaseException:
    """Return an exception of the driver in the shape in which SQLAlchemy raises it."""
    return DBAPIError.instance(
        None,
        None,
        exc,
        engine.dialect.loaded_dbapi.Error,
        hide_parameters=True,
        connection_invalidated=broken,
        dialect=engine.dialect,
    )


class _Prepared:
    """A statement as the driver takes it."""

    def __init__(self, statement: Any, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        self.text = str(compiled)
        self._constants = dict(compiled.params)
        self._converters: dict[str, Callable[[Any], Any]] = {}
        for bind, name in compiled.bind_names.items():
            converter = bind.type.dialect_impl(dialect).bind_processor(dialect)
            if converter is not None:
                self._converters[name] = converter

    def parameters(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values that the statement takes, its own among them, as the driver takes them."""
        given = {name: values.get(name, constant) for name, constant in self._constants.items()}
        for name, converter in self._converters.items():
            given[name] = converter(given[name])
        return given


# Bounded, since a process may make engines again and again.
@functools.lru_cache(maxsize=32)
def _prepare(statement: Executable, dialect: Dialect) -> _Prepared:
    return _Prepared(statement, dialect)
