"""What `session.execute(update(ProcessingTask)...)` and its like need, which pass the unit of work by.

The end of a task is kept safe from them, and what they change is noted for subscribers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from typing import Any, Final, cast

from sqlalchemy import BindParameter, Connection, Result, event, select
from sqlalchemy.orm import ORMExecuteState, Session

from ...clock import now
from ...database.sessions.open_writes import note_write
from ...database.tables.runner import task_table
from ...events import TaskEvent
from ...states import check_status, is_terminal
from ...store.progress.own import mark_own
from ...store.task import outbox as task_outbox
from ...store.task.locks import lock_database
from ...store.task_end import end
from . import cleared_steps, raised_events
from .own_progress import PROGRESS_COLUMNS

_GUARDED: Final = frozenset({"task_status", "finished_at"})

#: Columns of a task that are shown among its details.
_DETAILS: Final = frozenset({"data", *PROGRESS_COLUMNS, "task_log", "_log_column"})


class _Expression:
    """The type of the mark for a value that only the database knows."""


_EXPRESSION: Final = _Expression()


def listen(
    task_class: type[Any], step_class: type[Any], detail_classes: Collection[type[Any]], subscription_class: type[Any]
) -> None:
    """Guard ORM-enabled statements from now on, and note what they change.

    Those that set `task_status` or `finished_at` leave tasks alone that have ended, and end the others as a flush
    does. Core statements on a connection, `bulk_…` methods and INSERT from a SELECT are not seen.

    Args:
        task_class: `ProcessingTask`.
        step_class: `Step`.
        detail_classes: Classes whose rows are shown with a task.
        subscription_class: `TaskUpdateSubscription`.
    """

    def tell(state: ORMExecuteState) -> None:
        mapper = state.bind_mapper
        if mapper is None or not (state.is_insert or state.is_update or state.is_delete):
            return
        changed = mapper.class_
        if changed is task_class and state.is_update:
            written = _DETAILS & _set_by(state)
            changes = _note(state, task_class.id, TaskEvent.DETAILS) if written else ()
            if written.intersection(PROGRESS_COLUMNS):
                # Whatever it looks like, which only the database may know.
                connection = state.session.connection(bind_arguments=dict(state.bind_arguments))
                for task_id in changes:
                    mark_own(connection, task_id)
        elif changed is step_class:
            _note(state, step_class.id, TaskEvent.STEPS)
        elif changed in detail_classes:
            _note(state, changed.task_id, TaskEvent.DETAILS)
        elif changed is subscription_class and state.is_insert:
            for task_id in _inserted(state, "task_id"):
                connection = state.session.connection(bind_arguments=dict(state.bind_arguments))
                task_outbox.forget_free_ids(connection)
                raised_events.note_subscription(state.session, task_id)

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

    # In this order: which rows a statement matches is asked before it runs.
    event.listen(Session, "do_orm_execute", tell)
    event.listen(Session, "do_orm_execute", guard)


def _note(state: ORMExecuteState, owner: Any, told: TaskEvent) -> set[Any]:
    """Note an event for the tasks whose rows a statement is about to change or insert; returns their ids.

    Args:
        state: The statement.
        owner: The attribute that holds the id of the task.
        told: What happens.
    """
    # So that there is a transaction that the note belongs to.
    connection = state.session.connection(bind_arguments=dict(state.bind_arguments))
    found: set[Any] = set()
    if not state.is_delete:
        found.update(_inserted(state, owner.key))
    if not state.is_insert:
        query = select(owner).distinct()
        parameters = state.parameters
        if state.is_executemany:
            keys = [row["id"] for row in cast("list[dict[str, Any]]", parameters) if "id" in row]
            found.update(connection.execute(query.where(owner.class_.id.in_(keys))).scalars())
        else:
            where = cast(Any, state.statement).whereclause
            narrowed = query if where is None else query.where(where)
            found.update(
                connection.execute(narrowed, parameters if isinstance(parameters, Mapping) else None).scalars()
            )
    for task_id in found:
        raised_events.note(state.session, task_id, told)
    return found


def _set_by(state: ORMExecuteState) -> set[str]:
    """Return the names of the columns that an UPDATE sets."""
    if state.is_executemany:
        return {key for row in cast("list[dict[str, Any]]", state.parameters) for key in row}
    return set(_values(state))


def _inserted(state: ORMExecuteState, key: str) -> Iterator[int]:
    """Return the values that a statement gives to a column, as far as it says them itself."""
    statement: Any = state.statement
    rows: list[Mapping[str, Any]] = []
    if isinstance(state.parameters, Mapping):
        rows.append(state.parameters)
    elif state.parameters:
        rows.extend(state.parameters)
    for many in getattr(statement, "_multi_values", None) or ():
        rows.extend({getattr(column, "key", column): value for column, value in row.items()} for row in many)
    if not state.is_executemany:
        rows.append(_values(state))
    for row in rows:
        value = row.get(key)
        if isinstance(value, int):
            yield value


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
                select(task_table.c.task_status, task_table.c.finished_at).where(task_table.c.id == row["id"])
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
    lock_database(connection)
    return connection


def _let_end(
    session: Session, connection: Connection, task_id: int, values: Mapping[str, Any], step_class: type[Any]
) -> bool:
    """End one task as the values say; returns whether they may be written into its row."""
    given, moment = values.get("task_status"), values.get("finished_at")
    # What only the database knows counts as no word; the condition that the task has not ended guards it all the same.
    word = None if isinstance(given, _Expression) else check_status(given)
    if not is_terminal(word) and moment is None:
        outcome = end.set_status(connection, task_id, word)
        return outcome is not None and outcome.accepted
    outcome = end.end(
        connection, task_id, word if is_terminal(word) else None, moment if isinstance(moment, datetime) else now()
    )
    if outcome is None or not outcome.accepted:
        return False
    cleared_steps.show_cleared(session, task_id, step_class)
    raised_events.note(session, task_id, *end.events_of(outcome))
    return True


def _expire(session: Session, task_class: type[Any], task_ids: list[int]) -> None:
    changed = set(task_ids)
    for task in list(session.identity_map.values()):
        if isinstance(task, task_class) and task.__dict__.get("id") in changed:
            session.expire(task, ["task_status", "finished_at", "progress_value"])
