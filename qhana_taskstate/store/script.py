"""A write that consists of statements whose conditions stand in their SQL, and of what their answers mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection

from ..database.engine import Database
from ..database.scripts.statement import Answers, Statement, send

T = TypeVar("T")


def _nothing_left(connection: Connection, answers: Answers) -> Any:
    raise AssertionError("a script without a rest always tells what it led to")


@dataclass(frozen=True, slots=True, kw_only=True)
class Script(Generic[T]):
    """Statements of one transaction, and what their answers mean. Callable, as a write that takes a connection.

    Attributes:
        statements: In the order in which they are sent.
        conclude: Tells what they led to; None if there is more to do.
        rest: Does that, in the same transaction.
        at_once: They are committed by the message that sends them; `rest` then has a transaction of its own.
    """

    statements: Sequence[Statement]
    conclude: Callable[[Answers], T | None]
    rest: Callable[[Connection, Answers], T] = _nothing_left
    at_once: bool = False

    def __call__(self, connection: Connection) -> T:
        """Send one statement after the other in the transaction of a connection."""
        answers = send(connection, self.statements)
        found = self.conclude(answers)
        return self.rest(connection, answers) if found is None else found

    def run(self, database: Database) -> T:
        """Send them in one message, in a short transaction of their own.

        Args:
            database: One that `pipelines`.

        Raises:
            DatabaseUnavailableError: If the database cannot be reached.
            sqlalchemy.exc.DBAPIError: Whatever else the database refuses.
        """
        with database.sending(self.statements, at_once=self.at_once) as sent:
            found = self.conclude(sent.answers)
            return self.rest(sent.go_on(), sent.answers) if found is None else found
