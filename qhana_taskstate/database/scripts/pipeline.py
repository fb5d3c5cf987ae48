"""Sends a script to PostgreSQL in one message, through libpq's pipeline mode, where psycopg is the driver.

What psycopg and SQLAlchemy do around a statement costs more than the statement itself. Here it is prepared once for
each connection, and then only its values are sent.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, Dialect, Engine, Transaction
from sqlalchemy.exc import DBAPIError

from .prepared import Prepared, prepare
from .statement import Answer, Answers, Sent, Statement, announce_after_commit

#: The driver that knows libpq's pipeline mode, as SQLAlchemy calls it.
_PIPELINING: Final = "psycopg"

#: Where a connection keeps which statements its server has prepared; None if it cannot keep any.
_PREPARED: Final = "taskstate_prepared"

#: SQLSTATEs of a prepared statement that is not there, or is there already: something between us and the server, or the
#: driver, disposes of them.
_NOT_KEPT: Final = ("26000", "42P05")

#: How values of a type of PostgreSQL, by its number, are read: bool, int8, int2, int4. Others are texts.
_READERS: Final[dict[int, Callable[[bytes], Any]]] = {16: b"t".__eq__, 20: int, 21: int, 23: int}

#: Around the statements of a script. They are not prepared: behind a pooler the server that has prepared the rest may
#: not know them, and a COMMIT that is refused cannot be sent again.
_BEGIN: Final = Prepared("BEGIN ISOLATION LEVEL READ COMMITTED")
_COMMIT: Final = Prepared("COMMIT")


def can_pipeline(engine: Engine) -> bool:
    """Tell whether `pipelined` works on an engine."""
    # libpq knows it since version 14.
    return engine.dialect.driver == _PIPELINING and bool(engine.dialect.loaded_dbapi.Pipeline.is_supported())


@contextmanager
def pipelined(connection: Connection, statements: Sequence[Statement], *, at_once: bool) -> Iterator[Sent]:
    """Send statements in one message, and commit at the end; no event of SQLAlchemy tells of it.

    Args:
        connection: Outside of a transaction, of an engine for which `can_pipeline` holds.
        statements: The statements.
        at_once: Whether the message commits them.

    Raises:
        sqlalchemy.exc.DBAPIError: What the database refuses. The connection is given up then.
    """
    error = connection.dialect.loaded_dbapi.Error
    try:
        wire = _Wire(connection)
        begun: list[Transaction] = []

        def go_on() -> Connection:
            # From here on SQLAlchemy knows of the transaction; its BEGIN finds one, and does nothing.
            begun.append(connection.begin())
            return connection

        yield Sent(_answers(connection, wire, statements, at_once=at_once), go_on)
        if begun:
            begun[0].commit()
        elif not at_once:
            wire.commit()
    except error as exc:
        driver: Any = connection.connection.driver_connection
        broken = connection.dialect.is_disconnect(exc, driver, None)
        # Such faults are rare: a new connection is the surest way back to a clean one.
        connection.invalidate(exc)
        raise _as_told(exc, connection.dialect, broken=broken) from exc
    except BaseException as exc:
        # A time limit may strike between two halves of a message.
        if not connection.invalidated:
            connection.invalidate(exc if isinstance(exc, Exception) else None)
        raise


def _answers(connection: Connection, wire: _Wire, statements: Sequence[Statement], *, at_once: bool) -> Answers:
    messages = [
        (prepared, prepared.encoded(values))
        for statement in statements
        for prepared in (prepare(statement.sql, connection.dialect),)
        for values in ((statement.values,) if isinstance(statement.values, Mapping) else statement.values)
    ]
    # If one is refused, the server does none of those after it, the COMMIT among them.
    taken = iter(wire.send([(_BEGIN, ()), *messages, *([(_COMMIT, ())] if at_once else ())])[1:])
    answers: dict[str, Answer] = {}
    for statement in statements:
        for _ in range(1 if isinstance(statement.values, Mapping) else len(statement.values)):
            answer = next(taken)
            answers[statement.name] = answer
            if statement.announces and answer.count > 0:
                announce_after_commit(connection)
    return answers


class _Wire:
    """Speaks to the server of one connection through libpq, several statements in one message."""

    def __init__(self, connection: Connection) -> None:
        # Before the driver is asked for: it opens the connection that is used.
        self._known: set[Prepared] | None = connection.info.setdefault(_PREPARED, set())
        self._info = connection.info
        driver: Any = connection.connection.driver_connection
        self._driver, self._pgconn = driver, driver.pgconn
        psycopg: Any = connection.dialect.loaded_dbapi
        self._errors = psycopg.errors
        self._done = (psycopg.pq.ExecStatus.TUPLES_OK, psycopg.pq.ExecStatus.COMMAND_OK)

    def send(self, messages: Sequence[tuple[Prepared, Sequence[bytes | None]]]) -> list[Answer]:
        """Send statements with their values, and wait for all answers.

        Raises:
            psycopg.Error: The first that the server refuses; then it has done nothing.
        """
        try:
            return self._send(messages)
        except self._errors.Error as exc:
            if self._known is None or exc.sqlstate not in _NOT_KEPT:
                raise
        # The transaction was not begun before, or is lost with this message, in which all of it was.
        self._known = self._info[_PREPARED] = None
        self._driver.rollback()
        return self._send(messages)

    def commit(self) -> None:
        """Commit what `send` has begun.

        Raises:
            psycopg.Error: What the server refuses.
        """
        self._send([(_COMMIT, ())])

    def _send(self, messages: Sequence[tuple[Prepared, Sequence[bytes | None]]]) -> list[Answer]:
        pgconn = self._pgconn
        expected: list[bool] = []
        pgconn.enter_pipeline_mode()
        fresh = []
        for prepared, values in messages:
            if self._known is None or prepared in (_BEGIN, _COMMIT):
                pgconn.send_query_params(prepared.numbered, list(values))
            else:
                if prepared not in self._known:
                    self._known.add(prepared)
                    fresh.append(prepared)
                    pgconn.send_prepare(prepared.name, prepared.numbered)
                    expected.append(False)
                # psycopg before 3.3 takes a list alone.
                pgconn.send_query_prepared(prepared.name, list(values))
            expected.append(True)
        pgconn.pipeline_sync()
        results = self._receive(len(expected))
        pgconn.exit_pipeline_mode()
        answers = []
        for result, is_answer in zip(results, expected, strict=True):
            if result.status not in self._done:
                if self._known is not None:
                    self._known.difference_update(fresh)
                raise self._errors.error_from_result(result, "utf-8")
            if is_answer:
                answers.append(_answer(result))
        return answers

    def _receive(self, expected: int) -> list[Any]:
        """Wait for results; in Python, so that a time limit can strike and a hub of gevent goes on."""
        pgconn = self._pgconn
        waiter = select.poll()
        socket = pgconn.socket
        waiter.register(socket, select.POLLIN | select.POLLOUT)
        while pgconn.flush():
            # What the server sends is taken meanwhile: it may read no more until then.
            if any(ready & select.POLLIN for _, ready in waiter.poll()):
                pgconn.consume_input()
        waiter.modify(socket, select.POLLIN)
        results: list[Any] = []
        # After the result of each statement comes None, and at last the mark of the end of the message.
        while len(results) < 2 * expected + 1:
            while pgconn.is_busy():
                waiter.poll()
                pgconn.consume_input()
            results.append(pgconn.get_result())
            if results[-2:] == [None, None]:
                raise self._errors.OperationalError(pgconn.get_error_message() or "the server closed the connection")
        return results[: 2 * expected : 2]


def _answer(result: Any) -> Answer:
    readers = [_READERS.get(result.ftype(column), bytes.decode) for column in range(result.nfields)]
    rows = [
        [
            None if (value := result.get_value(row, column)) is None else read(value)
            for column, read in enumerate(readers)
        ]
        for row in range(result.ntuples)
    ]
    return Answer(rows, result.command_tuples or 0)


def _as_told(exc: Exception, dialect: Dialect, *, broken: bool) -> BaseException:
    """Return an exception of the driver in the shape in which SQLAlchemy raises it."""
    return DBAPIError.instance(
        None,
        None,
        exc,
        dialect.loaded_dbapi.Error,
        hide_parameters=True,
        connection_invalidated=broken,
        dialect=dialect,
    )
