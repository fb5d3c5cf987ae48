"""What the models share: the base, default values, reading a row anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from sqlalchemy.orm import DeclarativeBase, Session, object_session

from ..clock import now
from ..database.sessions.current import current_session, explaining
from ..database.tables import base
from ..database.tables.runner import step_table, task_table
from ..ids import row_id

T = TypeVar("T")


class _Default:
    """Stands in a signature for a value that is made at the call.

    Args:
        text: How it is shown.
        make: Makes the value.
    """

    def __init__(self, text: str, make: Callable[[], Any]) -> None:
        self._text = text
        self.make = make

    def __repr__(self) -> str:
        return self._text


NOW: Any = _Default("<now>", now)


NEW_DICT: Any = _Default("<factory>", dict)


NEW_LIST: Any = _Default("<factory>", list)


def made(value: T) -> T:
    return cast(T, value.make()) if isinstance(value, _Default) else value


class Base(DeclarativeBase):
    """Base of the mapped classes."""

    metadata = base.metadata


B = TypeVar("B", bound=Base)


def id_of_task(task: Base | int | str) -> int | None:
    found: int | None = getattr(task, "id", None) if isinstance(task, Base) else row_id(task)
    return found


class Saved:
    """What classes share whose objects put themselves into a session."""

    def _session(self) -> Session:
        """The session that the object is in, else the current one."""
        return object_session(self) or current_session()

    def save(self, commit: bool = False) -> None:
        """Add this object to the current session.

        Args:
            commit: Also commit the session, and with it everything that was changed in it.

        Raises:
            NotConfiguredError: If there is no `TaskState` in this process.
            SchemaError: If the tables are missing or too old.
            DatabaseUnavailableError: If the database cannot be reached.
            OwnTransactionError: If on SQLite the commit would wait for a transaction that this thread has open.
        """
        session = self._session()
        session.add(self)
        if commit:
            with explaining(session):
                session.commit()


def read_anew(cls: type[B], id_: object) -> B | None:
    key = row_id(id_)
    if key is None:
        return None
    session = current_session()
    with explaining(session):
        return _get_anew(session, cls, key)


def _get_anew(session: Session, cls: type[B], key: int) -> B | None:
    session.flush()
    if cls.__table__ is task_table:
        # A collection that is loaded again does not refresh the objects in it that are known already.
        for child in list(session.identity_map.values()):
            if isinstance(child, Base) and _parent_id(child) == key:
                session.expire(child)
    return session.get(cls, key, populate_existing=True)


def _parent_id(row: Base) -> Any:
    """Return the id of the task that a row refers to, None for a task."""
    return row.__dict__.get("id" if row.__table__ is step_table else "task_id")
