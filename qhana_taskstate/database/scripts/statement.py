"""Statements whose conditions stand in their SQL, so that none waits for what Python makes of an answer.

Each has a snapshot of its own (READ COMMITTED), however the list is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection

from .prepared import prepare

#: Where a connection notes that its open transaction is to be announced.
ANNOUNCED: Final = "taskstate_announced"


def announce_after_commit(connection: Connection) -> None:
    """Let the `Database` call its `announce` once the transaction that it opened on this connection is committed."""
    connection.info[ANNOUNCED] = True


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a script.

    Attributes:
        sql: It, or a `PerDatabase`; the same object each time, as it is compiled once.
        values: Its values by name, of which it may take only some; or several of them, to run it for each.
        name: What its answer is called; "" where nobody asks.
        announces: If it writes something, subscribers are to be told after the commit.
    """

    sql: Any
    values: Mapping[str, Any] | Sequence[Mapping[str, Any]]
    name: str = ""
    announces: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What a statement led to.

    Attributes:
        rows: Its rows, with the driver's own values.
        count: How many rows it wrote.
    """

    rows: Sequence[Sequence[Any]]
    count: int


#: By the names of the statements.
Answers = Mapping[str, Answer]


def send(connection: Connection, statements: Sequence[Statement]) -> Answers:
    """Send one statement after the other in the transaction of a connection."""
    answers = {}
    for statement in statements:
        prepared = prepare(statement.sql, connection.dialect)
        values = statement.values
        given: Any = (
            prepared.parameters(values)
            if isinstance(values, Mapping)
            else [prepared.parameters(each) for each in values]
        )
        result = connection.exec_driver_sql(prepared.text, given)
        answer = Answer(result.fetchall() if result.returns_rows else (), result.rowcount)
        answers[statement.name] = answer
        if statement.announces and answer.count > 0:
            announce_after_commit(connection)
    return answers


@dataclass(frozen=True, slots=True)
class Sent:
    """Statements that were sent, and the transaction that they are in.

    Attributes:
        answers: What they led to.
        go_on: Returns a connection in the same transaction; in one of its own if it was committed at once.
    """

    answers: Answers
    go_on: Callable[[], Connection]
