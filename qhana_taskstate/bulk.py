"""Keeps the end of a task safe from `session.execute(update(ProcessingTask)...)`, which passes the unit of work by."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import BindParameter, Connection, Result, event, false, select, update
from sqlalchemy.orm import ORMExecuteState, Session

from . import finality, steps
from .rows import task_row
from .sessions import note_write
from .states import check_status, is_terminal
from .tables import now

_GUARDED: Final = frozenset({"task_status", "finished_at"})


class _Expression:
    """The type of the mark for a value that only the database knows."""


_EXPRESSION: Final = _Expression()


def listen(task_class: type[Any], step_class: type[Any]) -> None:
    """Guard ORM-enabled UPDATE statements from now on.

    Those that set `task_status` or `finished_at` leave tasks alone that have ended, and end the others as a flush
    does. Core statements on a connection and `bulk_update_mappings` are not seen.

    Args:
        task_class: `ProcessingTask`.
        step_class: `Step`.
    """

    def guard(state: ORMExecuteState) -> Result[Any] | None:
        mapper = state.bind_mapper
        if not state.is_update or mapper is None or mapper.class_ is not task_class:
            return None
        if state.is_executemany:
            return _update_each(state, task_class, step_class)
        values = _values(state)
        if not _GUARDED & values.keys():
            return None
        return _update_matching(state, values, task_class, step_class)

    event.listen(Session, "do_orm_execute", guard)


def _values(state: ORMExecuteState) -> dict[str, Any]:
    """Return what a statement sets, by the names of columns."""
    statement: Any = state.statement
    pairs = [*(getattr(statement, "_ordered_values", None) or ()), *(statement._values or {}).items()]
    values: dict[str, Any] = {}
    for column, value in pairs:
        literal = value.value if isinstance(value, BindParameter) and value.callable is None else _EXPRESSION
        values[column if isinstance(column, str) else column.key] = literal
    if isinstance(state.parameters, Mapping):
        values.update({key: value for key, value in state.parameters.items() if key in _GUARDED or key in values})
    return values


def _update_matching(
    state: ORMExecuteState, values: Mapping[str, Any], task_class: type[Any], step_class: type[Any]
) -> Result[Any]:
    statement: Any = state.statement
    connection = _connection(state)
    query = select(task_class.id).where(task_class.finished_at.is_(None))
    if statement.whereclause is not None:
        query = query.where(statement.whereclause)
    parameters = state.parameters if isinstance(state.parameters, Mapping) else None
    query = query.order_by(task_class.id).with_for_update(key_share=True, of=task_class)
    found = dict.fromkeys(connection.execute(query, parameters).scalars())
    kept = [task_id for task_id in found if _let_end(state.session, connection, task_id, values, step_class)]
    result = state.invoke_statement(statement.where(task_class.id.in_(kept)))
    _expire(state.session, task_class, kept)
    return result


def _update_each(state: ORMExecuteState, task_class: type[Any], step_class: type[Any]) -> Result[Any] | None:
    given: Any = state.parameters
    if not any(_GUARDED & row.keys() for row in given):
        return None
    connection = _connection(state)
    changes: list[dict[str, Any]] = []
    for row in given:
        change: dict[str, Any] = {}
        if _GUARDED & row.keys() and not _let_end(state.session, connection, row["id"], row, step_class):
            stored = connection.execute(
                select(task_row.c.task_status, task_row.c.finished_at).where(task_row.c.id == row["id"])
            ).one_or_none()
            # Written again as it is: what a statement sets cannot be taken out of it.
            change = {} if stored is None else {key: getattr(stored, key) for key in _GUARDED & row.keys()}
        changes.append(change)
    result = state.invoke_statement(params=changes)
    _expire(state.session, task_class, [row["id"] for row in given])
    return result


def _connection(state: ORMExecuteState) -> Connection:
    session = state.session
    connection = session.connection(bind_arguments=dict(state.bind_arguments))
    note_write(session)
    if connection.dialect.name == "sqlite":
        # Takes the write lock, so that what is read next stays true.
        connection.execute(update(task_row).where(false()).values(current_step=0))
    return connection


def _let_end(
    session: Session, connection: Connection, task_id: int, values: Mapping[str, Any], step_class: type[Any]
) -> bool:
    """End one task as the values say; returns whether they may be written into its row."""
    given, moment = values.get("task_status"), values.get("finished_at")
    # What only the database knows counts as no word; the condition that the task has not ended guards it all the same.
    word = None if isinstance(given, _Expression) else check_status(given)
    if not is_terminal(word) and moment is None:
        ending = finality.set_status(connection, task_id, word)
        return ending is not None and ending.accepted
    ending = finality.end(
        connection, task_id, word if is_terminal(word) else None, moment if isinstance(moment, datetime) else now()
    )
    if ending is None or not ending.accepted:
        return False
    steps.show_cleared(session, task_id, step_class)
    return True


def _expire(session: Session, task_class: type[Any], task_ids: list[int]) -> None:
    changed = set(task_ids)
    for task in list(session.identity_map.values()):
        if isinstance(task, task_class) and task.__dict__.get("id") in changed:
            session.expire(task, ["task_status", "finished_at", "progress_value"])
