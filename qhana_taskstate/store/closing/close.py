"""Closes an execution, and ends its task: as SUCCESS if nothing else is open, at once if it failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, bindparam, delete, literal, select, update

from ...clock import now
from ...database.dialects import KINDS
from ...database.inserts import absent
from ...database.scripts.prepared import PerDatabase
from ...database.scripts.statement import Answers, Statement
from ...database.sessions.current import current_settings
from ...database.tables.base import NAME_LENGTH
from ...database.tables.executions import execution_table, message_table
from ...database.tables.types import bare_type
from ...facts import ExecutionKey, Failure, Progress, Publication, TaskRef
from ...states import CHORD_UNLOCK, FAILED_STATES, ExecutionState, TaskStatus
from ...texts import LONGEST_TEXT, clean, cut
from ..executions.conditions import IS_JOB, IS_OURS, THIS
from ..executions.keys import IS_NAMED, is_named_in, named
from ..executions.registration import registration
from ..log import statements as log_statements
from ..log.text import clean as clean_entry
from ..script import Script
from ..task.jobs import locking
from ..task_end import conclusion
from ..task_end.conclusion import Look, Shown
from ..task_end.outcome import Outcome
from ..task_end.task_row import complete

#: How many characters of a traceback are kept.
_LONGEST_TRACEBACK: Final = 16 * LONGEST_TEXT


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """Everything that the end of an execution brings.

    Attributes:
        key: Its key.
        name: Name of the Celery task.
        state: A closed state.
        failure: Why it failed.
        publications: Messages that it published and that are not registered yet.
        lines: Log entries not written yet.
        progress: Its last progress if that is not written yet.
        counts_members: Whether a task of several members shows how many of them are done.
        to_come: How many members are known to follow.
        kept: Whether its message may have been kept.
        deadline_seconds: As for `register`; needed where there are publications.
        begun: Whether its row is known to be there.
    """

    key: ExecutionKey
    name: str
    state: ExecutionState
    failure: Failure | None = None
    publications: Sequence[Publication] = ()
    lines: Sequence[str] = ()
    progress: Progress | None = None
    counts_members: bool = True
    to_come: int = 0
    kept: bool = True
    deadline_seconds: float | None = None
    begun: bool = False


_ENDS: Final = ("state", "closed_at", "error_type", "error", "traceback")
_PROGRESS: Final = ("progress_value", "progress_start", "progress_target", "progress_unit")
_MOMENTS: Final = {"closed_at": "moment"}


def _bound(names: Sequence[str], prefix: str = "") -> dict[Any, Any]:
    columns = execution_table.c
    return {
        columns[name]: bindparam(_MOMENTS.get(name, prefix + name), type_=bare_type(columns[name])) for name in names
    }


#: Closes an execution that is open.
_CLOSE = update(execution_table).where(THIS, IS_OURS).values(_bound(_ENDS))
_CLOSE_WITH_PROGRESS = _CLOSE.values(_bound(_PROGRESS, "new_"))

#: The progress of one that was closed before.
_LATE_PROGRESS = (
    update(execution_table)
    .where(IS_NAMED, execution_table.c.closed_at != bindparam("moment", type_=bare_type(execution_table.c.closed_at)))
    .where(IS_OURS)
    .values(_bound(_PROGRESS, "new_"))
)

_FORGET_MESSAGE = delete(message_table).where(is_named_in(message_table), IS_OURS)

#: Leaves no row a second behind while Celery asks by retries whether the header of a chord is ready.
_FORGET_EARLIER_ATTEMPTS = delete(execution_table).where(
    execution_table.c.task_id == bindparam("of_task"),
    execution_table.c.celery_id == bindparam("of_celery_id", type_=bare_type(execution_table.c.celery_id)),
    execution_table.c.retries < bindparam("of_retries", type_=bare_type(execution_table.c.retries)),
    execution_table.c.state == ExecutionState.RETRY.value,
    IS_OURS,
)

#: An execution of this key has ended before.
_was_closed = select(literal(1)).where(IS_NAMED, execution_table.c.closed_at.is_not(None)).exists()


def _insert_closed(dialect: str) -> Any:
    columns = execution_table.c
    keys = {
        "task_id": "of_task",
        "celery_id": "of_celery_id",
        "retries": "of_retries",
        "nesting": "of_nesting",
        "name": "of_name",
        "deliveries": "none",
        "losses": "none",
        **{name: name for name in _ENDS},
        **_MOMENTS,
    }
    row = select(*(bindparam(name, type_=bare_type(columns[column])) for column, name in keys.items())).where(IS_JOB)
    return absent(execution_table, dialect).from_select(list(keys), row, include_defaults=False)


#: Inserts an execution that nobody recorded before.
_INSERT_CLOSED = PerDatabase({name: _insert_closed(name) for name in KINDS})


def close_script(ref: TaskRef, closing: Closing) -> Script[Outcome]:
    """Return what records the end of an execution, and that of its task if this is it.

    The messages that it published are registered in the same transaction, before anything looks for what is open:
    so a task is never seen at its end between a parent's close and a child's registration.

    Args:
        ref: The task. Nothing happens if the token belongs to no task.
        closing: What the end brings. For an execution that is already closed only its reports count.
    """
    fails = closing.state in FAILED_STATES
    values = _values(ref, closing)
    statements = [locking(values)]
    if closing.publications:
        assert closing.deadline_seconds is not None  # noqa: S101  (both or neither; tells the type checker)
        statements += registration(ref, closing.publications, deadline_seconds=closing.deadline_seconds)
    lines = list(map(clean_entry, closing.lines))
    if lines:
        statements += log_statements.appending(values, lines)
    if fails:
        failure = clean_entry(_failure_entry(closing))
        lines.append(failure)
        statements += log_statements.appending(values, [failure], unless=_was_closed)
    statements += _closing_statements(closing, values)
    if lines:
        values |= log_statements.shown(lines)
    shown = Shown(fails=fails, log=bool(lines), lines=bool(closing.lines), progress=closing.progress is not None)
    statements += conclusion.conclude(shown, values, webhooks=current_settings().webhooks)
    return Script(
        statements=statements,
        conclude=partial(_conclude, closing, shown),
        rest=partial(_complete, ref, closing, shown),
    )


def close(connection: Connection, ref: TaskRef, closing: Closing) -> Outcome:
    """Do what `close_script` says, in the transaction of a connection; on SQLite it must hold the write lock."""
    return close_script(ref, closing)(connection)


def _closing_statements(closing: Closing, values: dict[str, Any]) -> list[Statement]:
    statements = [Statement(_FORGET_MESSAGE, values)] if closing.kept else []
    if closing.progress is None:
        statements.append(Statement(_CLOSE, values, name="close"))
    else:
        statements += [Statement(_CLOSE_WITH_PROGRESS, values, name="close"), Statement(_LATE_PROGRESS, values)]
    if not closing.begun:
        row = values | {"of_name": clean(closing.name)[:NAME_LENGTH], "none": 0}
        statements.append(Statement(_INSERT_CLOSED, row, name="insert"))
    if closing.name == CHORD_UNLOCK and closing.state == ExecutionState.RETRY:
        statements.append(Statement(_FORGET_EARLIER_ATTEMPTS, values))
    return statements


def _values(ref: TaskRef, closing: Closing) -> dict[str, Any]:
    failure = closing.failure
    values = {
        **named(ref, closing.key),
        "moment": now(),
        "state": closing.state.value,
        "error_type": failure and clean(failure.type)[:NAME_LENGTH],
        "error": failure and clean(cut(failure.message)),
        "traceback": failure and failure.traceback and clean(cut(failure.traceback, _LONGEST_TRACEBACK)),
        "counts_members": int(closing.counts_members),
        "to_come": closing.to_come,
    }
    if closing.progress is not None:
        values |= closing.progress.as_columns("new_progress_")
    return values


def _conclude(closing: Closing, shown: Shown, answers: Answers) -> Outcome | None:
    """Read the answers; None if there is more to show than statements can."""
    locked = answers["job"].rows
    if not locked:
        return Outcome()
    look = Look.of(answers["look"].rows[0])
    ended = TaskStatus(look.end_status) if locked[0][0] is None and look.end_status is not None else None
    # What a plugin holds is shown later, all of it; while the task goes on the next flush of this process shows it.
    is_shown_now = (look.copied if ended else look.free) and not (look.open and look.end_status is None)
    if is_shown_now and (not look.complete or (look.several and _counts(closing, shown, look, ended))):
        return None
    return _outcome(answers, look, ended)


def _counts(closing: Closing, shown: Shown, look: Look, ended: TaskStatus | None) -> bool:
    """Tell whether the row of a task of several members is to show how many of them are done."""
    if not closing.counts_members:
        return False
    has_ended_before = look.end_status is not None and ended is None
    return ended == TaskStatus.SUCCESS or (shown.progress and not has_ended_before)


def _outcome(answers: Answers, look: Look, ended: TaskStatus | None) -> Outcome:
    changed = answers["close"].count > 0 or ("insert" in answers and answers["insert"].count > 0)
    return Outcome(
        changed=changed,
        ended=ended,
        members_open=look.open and look.end_status is None,
        shown=look.copied if ended else look.free,
    )


def _complete(ref: TaskRef, closing: Closing, shown: Shown, connection: Connection, answers: Answers) -> Outcome:
    look = Look.of(answers["look"].rows[0])
    ended = TaskStatus(look.end_status) if answers["job"].rows[0][0] is None and look.end_status is not None else None
    complete(
        connection,
        ref.task_id,
        ended,
        log=not look.complete,
        counts=look.several and _counts(closing, shown, look, ended),
        own=closing.progress,
        to_come=closing.to_come,
        told=shown.lines or ended is not None,
    )
    return _outcome(answers, look, ended)


def _failure_entry(closing: Closing) -> str:
    cause = closing.failure.summary if closing.failure else closing.state.value.lower()
    return cut(f"{closing.name} failed: {cause}")
