"""Marks: a few values that differ as soon as anything that the task resource shows has changed.

One statement reads the mark of a task, so that a client that polls costs hardly more than a look at its row.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from itertools import chain, islice
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Dialect,
    Select,
    String,
    Table,
    bindparam,
    cast,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by

from ...database.tables.executions import execution_table
from ...database.tables.log import log_table
from ...database.tables.runner import file_table, link_table, step_table, task_table
from ...events import TaskEvent
from ...states import ExecutionState

_task, _step, _file, _link = task_table, step_table, file_table, link_table

#: Ids in one statement; SQLite before 3.32 takes 999 bound values.
_IDS_AT_ONCE: Final = 500

# Literals rather than bound values: the statement has the id of the task alone to bind.
_NOTHING: Final[ColumnElement[str]] = literal_column("''", String)
_LINE: Final[ColumnElement[str]] = literal_column("'\n'", String)
_SEPARATOR: Final[ColumnElement[str]] = literal_column("'\x1f'", String)


@dataclass(frozen=True, slots=True)
class Mark:
    """What a task looks like; two are equal if and only if nothing that is shown has changed between them.

    Attributes:
        finished: Whether the task has ended.
        shown: For each of `EVENTS` the values that it tells of.
    """

    finished: bool
    shown: tuple[tuple[str, ...], ...]

    @property
    def digests(self) -> tuple[str, ...]:
        """A short text for each of `EVENTS` that stands for its values; the same in every process."""
        return tuple(_short(values) for values in self.shown)


def _short(values: tuple[Any, ...]) -> str:
    return blake2b(repr(values).encode(errors="replace"), digest_size=6).hexdigest()


def read_mark(connection: Connection, task_id: int) -> Mark | None:
    """Return the mark of a task; None if there is no such row."""
    statement, names = _compiled(connection.dialect, connection.dialect.name)
    values: Any = (task_id,) * names if connection.dialect.positional else {"task_id": task_id}
    row = connection.exec_driver_sql(statement, values).first()
    return None if row is None else _mark(tuple(row))


def read_marks(connection: Connection, task_ids: Iterable[int]) -> dict[int, Mark]:
    """Return the marks of many tasks, in one statement for each 500 of them; those without a row are left out."""
    wanted = sorted(set(task_ids))
    found: dict[int, Mark] = {}
    for position in range(0, len(wanted), _IDS_AT_ONCE):
        some = wanted[position : position + _IDS_AT_ONCE]
        query = _query(connection.dialect.name).where(_task.c.id.in_(some))
        found.update({row[0]: _mark(tuple(row)) for row in connection.execute(query)})
    return found


@cache
def _compiled(dialect: Dialect, name: str) -> tuple[str, int]:
    """Compile the statement once: SQLAlchemy would take longer to look it up in its cache than SQLite to run it."""
    compiled: Any = _query(name).where(_task.c.id == bindparam("task_id")).compile(dialect=dialect)
    return str(compiled), len(compiled.positiontup or ())


def _mark(row: tuple[Any, ...]) -> Mark:
    finished, *values = row[1:]
    texts = iter([str(value) for value in values])
    return Mark(finished=bool(finished), shown=tuple(tuple(islice(texts, count)) for count in _COUNTS))


def _query(dialect: str) -> Select[Any]:
    columns = chain.from_iterable(_columns(dialect).values())
    return select(_task.c.id, _task.c.finished_at.is_not(None), *columns)


def _columns(dialect: str) -> dict[TaskEvent, tuple[ColumnElement[Any], ...]]:
    """Return what each event tells of; an event that nothing shown belongs to is left out."""
    newest = select(func.max(log_table.c.id)).where(log_table.c.task_id == _task.c.id)
    newest_id = newest.correlate(_task).scalar_subquery()
    log_end = log_table.alias("log_end")
    running = literal_column(f"'{ExecutionState.RUNNING.value}'", String)
    open_work = select(func.count()).where(
        execution_table.c.task_id == _task.c.id, execution_table.c.closed_at.is_(None)
    )
    open_work = open_work.correlate(_task)
    return {
        TaskEvent.STATUS: (_plain(_task.c.finished_at), _plain(_task.c.task_status)),
        TaskEvent.STEPS: (
            _digest(
                dialect, _step,
                _step.c.id, _step.c.number, _step.c.step_id, _step.c.href, _step.c.ui_href, _step.c.cleared,
            ),
        ),
        TaskEvent.DETAILS: (
            _plain(_task.c.task_name),
            _plain(_task.c.started_at),
            _task.c.progress_value,
            _plain(_task.c.progress_start),
            _plain(_task.c.progress_target),
            _plain(_task.c.progress_unit),
            func.length(_task.c.task_log),
            newest_id,
            # A log that was replaced may have its old length, and the id of its old entry.
            select(_plain(log_end.c.created_at)).where(log_end.c.id == newest_id).scalar_subquery(),
            _digest(
                dialect, _file, _file.c.task_id, _file.c.id, _file.c.file_name, _file.c.file_type, _file.c.mimetype,
                _file.c.storage_provider, _file.c.security_tag,
            ),
            _digest(dialect, _link, _link.c.task_id, _link.c.id, _link.c.type, _link.c.href),
            open_work.scalar_subquery(),
            open_work.where(execution_table.c.state == running).scalar_subquery(),
        ),
    }  # fmt: skip


def _plain(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return a column as text: what it looks like is enough here, and its type would cost time to convert."""
    return cast(column, String)


def _digest(dialect: str, table: Table, owner: ColumnElement[Any], *columns: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the expression for the content of the rows of a task in another table."""
    texts = [func.coalesce(cast(column, String), _NOTHING) for column in columns]
    text: Any = texts[0]
    for more in texts[1:]:
        text = text.concat(_SEPARATOR).concat(more)
    gathered: Any
    match dialect:
        case "postgresql":
            gathered = func.string_agg(text, aggregate_order_by(_LINE, columns[0]))
        case "sqlite":
            gathered = func.group_concat(text, _LINE)
        case _:
            # GROUP_CONCAT is cut after a kibibyte (MariaDB before 10.2.4, MySQL).
            gathered = func.sum(func.crc32(func.concat_ws(_SEPARATOR, *texts)))
    return select(gathered).where(owner == _task.c.id).correlate(_task).scalar_subquery()


#: The events that tell of what is shown, and how many of the columns each tells of.
EVENTS: Final = tuple(_columns("sqlite"))
_COUNTS: Final = tuple(len(columns) for columns in _columns("sqlite").values())
