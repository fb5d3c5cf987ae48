"""What the unit of work does with a `ProcessingTask` and its steps beyond plain columns.

Status, data, log and cleared steps are changed by several processes at once. A flush of one of them does not write
what this session believes but locks the row and puts the change on top of what is there.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, event, inspect
from sqlalchemy.orm import Mapper, QueryContext, Session, object_session
from sqlalchemy.orm.attributes import get_history, set_committed_value

from ...clock import now
from ...database.dialects import kind_of
from ...database.sessions.current import current_settings
from ...database.tables.runner import task_table
from ...events import TaskEvent
from ...states import UNKNOWN, check_status, is_terminal, with_error_word
from ...store.log import entries, text
from ...store.task import steps as task_steps
from ...store.task.locks import lock_task
from ...store.task_end import end
from ...store.task_end.end import TaskFinishedWarning
from . import cleared_steps, own_progress, raised_events
from . import document as changes_document
from .checks import check_bytes
from .document import Document
from .own_progress import PROGRESS_COLUMNS
from .pending_log import PendingLog

#: Mark in the info of an object: its end was written in the open transaction.
_ENDED: Final = "qhana_taskstate_ended_here"

#: Key in the info of a session: its objects that know something about the open transaction.
_MARKED: Final = "qhana_taskstate_marked_tasks"

# Frames from `warnings.warn` to an assignment: two of this module and four of SQLAlchemy 2.0 and 2.1.
_ASSIGNMENT: Final = 7


def listen(
    task_class: type[Any],
    step_class: type[Any],
    child_classes: Iterable[type[Any]],
    inside_execution_of: Callable[[int], bool],
) -> None:
    """Attach all of it to the mapped classes.

    Args:
        task_class: `ProcessingTask`.
        step_class: `Step`.
        child_classes: All classes whose rows refer to a task.
        inside_execution_of: Tells whether the calling code runs in an execution of a task.
    """

    def before_task_update(mapper: Mapper[Any], connection: Connection, task: Any) -> None:
        check_bytes(connection, task)
        _note_details(connection, task)
        _merge_data(connection, task)
        if get_history(task, "task_status").has_changes() or get_history(task, "finished_at").has_changes():
            _write_status(connection, task, step_class)
        _write_log(connection, task)

    def before_step_update(mapper: Mapper[Any], connection: Connection, step: Any) -> None:
        if step.cleared and get_history(step, "cleared").has_changes():
            lock_task(connection, step.id)
            session = object_session(step)
            cleared = task_steps.clear(connection, step.id, step.number, goes_on=inside_execution_of(step.id))
            if cleared and session is not None:
                raised_events.note(session, step.id, TaskEvent.STEPS)
            set_committed_value(step, "cleared", True)

    event.listen(task_class.task_status, "set", _on_status, retval=True, active_history=True)
    event.listen(task_class.finished_at, "set", _on_finished_at, retval=True, active_history=True)
    event.listen(task_class.data, "set", _on_data, retval=True, active_history=True)
    event.listen(task_class, "load", _on_load)
    event.listen(task_class, "refresh", _on_refresh)
    event.listen(task_class, "expire", _on_expire)
    event.listen(task_class, "before_insert", _before_task_insert)
    event.listen(task_class, "after_insert", _after_task_insert)
    event.listen(task_class, "before_update", before_task_update)
    event.listen(step_class, "before_update", before_step_update)
    for child_class in child_classes:
        event.listen(child_class, "before_insert", _before_child_insert)
    event.listen(Session, "after_commit", _after_commit)
    event.listen(Session, "after_soft_rollback", _after_rollback)


def _committed(task: Any, key: str) -> Any:
    """Return what the row of a task holds in an attribute, as far as this object knows."""
    committed = inspect(task).committed_state
    if key not in committed:
        return getattr(task, key)
    value = committed[key]
    # SQLAlchemy has marks of its own for values that were never loaded.
    return value if isinstance(value, (str, datetime)) else None


def _has_ended(task: Any) -> bool:
    return inspect(task).has_identity and _committed(task, "finished_at") is not None


def _warn(task: Any, ignored: str, stacklevel: int) -> None:
    word = _committed(task, "task_status") or UNKNOWN
    warnings.warn(
        f"task {task.__dict__.get('id')} has already ended as {word}; {ignored} is ignored",
        TaskFinishedWarning,
        stacklevel=stacklevel,
    )


def _on_status(task: Any, value: Any, old: Any, initiator: object) -> Any:
    word = with_error_word(check_status(value), current_settings().error_status)
    if not _has_ended(task):
        return word
    stored = _committed(task, "task_status")
    if not is_terminal(stored) and inspect(task).info.get(_ENDED) and is_terminal(word):
        # A query has flushed `finished_at` before its word was set.
        return word
    if word != stored:
        _warn(task, f"the new status {value!r}", _ASSIGNMENT)
    return old


def _on_finished_at(task: Any, value: Any, old: Any, initiator: object) -> Any:
    if not _has_ended(task):
        return value
    # A query may have flushed the word, and with it a moment, before this second half of an end.
    if value != old and not inspect(task).info.get(_ENDED):
        _warn(task, f"the new finished_at {value}", _ASSIGNMENT)
    return old


def _on_data(task: Any, value: Any, old: Any, initiator: object) -> Any:
    return Document.of(task, "data").assign(value, old)


def _on_load(task: Any, context: QueryContext) -> None:
    Document.of(task, "data").loaded()


def _on_refresh(task: Any, context: QueryContext, attributes: Iterable[str] | None) -> None:
    if attributes is None or "data" in attributes:
        Document.of(task, "data").loaded()


def _on_expire(task: Any, attributes: Iterable[str] | None) -> None:
    # As for every other attribute, what was not flushed is given up.
    if attributes is None or "task_log" in attributes:
        PendingLog.of(task).give_up()


def _before_task_insert(mapper: Mapper[Any], connection: Connection, task: Any) -> None:
    check_bytes(connection, task)
    if is_terminal(task.task_status) and task.finished_at is None:
        task.finished_at = now()
    if task.finished_at is not None:
        at_end = end.progress_at_end(task.task_status, task.progress_value, task.progress_target)
        if at_end != task.progress_value:
            task.progress_value = at_end
        _clear_pending_steps(task)
    task._log_column = text.tail(PendingLog.of(task).show(""), text.column_limit(connection.dialect.name))


def _after_task_insert(mapper: Mapper[Any], connection: Connection, task: Any) -> None:
    own_progress.note(connection, task)
    log = PendingLog.of(task)
    entries.insert_entries(connection, task.id, log.entries)
    log.inserted = []
    log.written()
    _mark(task)
    # Nobody reads it from the object, and it may be long.
    task.__dict__.pop("task_log", None)


def _note_details(connection: Connection, task: Any) -> None:
    session = object_session(task)
    if session is None:
        return
    changed = Document.of(task, "data").dirty or PendingLog.of(task).dirty
    progressed = any(get_history(task, key).has_changes() for key in PROGRESS_COLUMNS)
    if progressed:
        own_progress.note(connection, task)
    if changed or progressed:
        raised_events.note(session, task.id, TaskEvent.DETAILS)


def _merge_data(connection: Connection, task: Any) -> None:
    document = Document.of(task, "data")
    if document.dirty:
        row = lock_task(connection, task.id, task_table.c.data)
        if row is not None:
            document.merge(row.data)


def _write_log(connection: Connection, task: Any) -> None:
    log = PendingLog.of(task)
    if not log.dirty:
        return
    _mark(task)
    if log.replaces:
        entries.replace(connection, task.id, text.join(log.entries))
    else:
        entries.append(connection, task.id, log.entries)
    log.written()


def _write_status(connection: Connection, task: Any, step_class: type[Any]) -> None:
    """Write a changed status now, guarded, and leave nothing of it to the unit of work."""
    word, moment = task.task_status, task.finished_at
    known_end = _committed(task, "finished_at")
    if known_end is not None:
        # Only the word for an end of unknown kind that this very transaction wrote gets here.
        if word is not None:
            end.name_end(connection, task.id, word)
        set_committed_value(task, "task_status", word)
        set_committed_value(task, "finished_at", known_end)
        return
    if moment is None and not is_terminal(word):
        outcome = end.set_status(connection, task.id, word)
    else:
        outcome = end.end(
            connection,
            task.id,
            word if is_terminal(word) else None,
            moment or now(),
            progress_value=_added(task, "progress_value"),
            progress_target=_added(task, "progress_target"),
        )
    if outcome is None:
        # The row is gone, which the unit of work notices by its own UPDATE.
        return
    set_committed_value(task, "task_status", outcome.status)
    set_committed_value(task, "finished_at", outcome.finished_at)
    if outcome.ended:
        set_committed_value(task, "progress_value", outcome.progress_value)
        _clear_pending_steps(task)
        session = object_session(task)
        if session is not None:
            cleared_steps.show_cleared(session, task.id, step_class)
            raised_events.note(session, task.id, *end.events_of(outcome))
        inspect(task).info[_ENDED] = True
        _mark(task)
    if not outcome.accepted and outcome.status != word:
        _warn(task, f"the new status {word!r}", 2)


def _clear_pending_steps(task: Any) -> None:
    for step in task.__dict__.get("steps", ()):
        if not inspect(step).persistent:
            step.cleared = True


def _added(task: Any, key: str) -> Any:
    added = get_history(task, key).added
    return added[0] if added else None


def _before_child_insert(mapper: Mapper[Any], connection: Connection, child: Any) -> None:
    check_bytes(connection, child)
    # On MariaDB a foreign key takes a shared lock of the task's row. Two sessions that both insert and then both
    # change that row would wait for each other.
    if kind_of(connection.dialect.name).locks_parent:
        key = mapper.get_property("id") if "task_id" not in mapper.columns else mapper.get_property("task_id")
        task_id = getattr(child, key.key)
        if task_id is not None:
            lock_task(connection, task_id)


def _mark(task: Any) -> None:
    session = object_session(task)
    if session is not None:
        session.info.setdefault(_MARKED, set()).add(task)


def _after_commit(session: Session) -> None:
    if session.in_nested_transaction():
        return
    changes_document.committed(session)
    for task in session.info.pop(_MARKED, ()):
        inspect(task).info.pop(_ENDED, None)
        PendingLog.of(task).inserted = None


def _after_rollback(session: Session, previous: Any) -> None:
    changes_document.rolled_back(session, wholly=not previous.nested)
    for task in list(session.info.get(_MARKED, ())):
        inspect(task).info.pop(_ENDED, None)
        if inspect(task).persistent:
            PendingLog.of(task).rolled_back()
        else:
            PendingLog.of(task).taken_back()
    if not previous.nested:
        session.info.pop(_MARKED, None)
