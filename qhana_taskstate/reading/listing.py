"""Finds a page of the list of tasks, as fast among millions as among thousands."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, Connection, String, func, literal_column, or_, select, type_coerce

from ..database.tables.runner import step_table, task_table
from ..settings.values import Settings
from ..states import ERROR_WORDS, UNKNOWN, TaskStatus
from . import tasks as reading_tasks
from .rows.views import TaskView

#: So many ids are looked through in one statement where no index helps.
_WINDOW: Final = 20_000

#: After so many seconds a look that no index helps pauses; the caller asks for the next page.
_PATIENCE_SECONDS: Final = 0.25

_OPEN: Final[ColumnElement[bool]] = task_table.c.finished_at.is_(None)

#: The most that is counted of each kind.
_MOST_COUNTED: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFilter:
    """Which tasks to list; what is left out filters nothing.

    Attributes:
        status: PENDING, SUCCESS, ERROR (FAILURE means the same), UNKNOWN, or another word of old rows.
        waiting: Only tasks that wait at a step for input.
        name: Only tasks whose name contains this text, in any case.
        search: Only tasks with this text, in any case, in their name or the newest part of their log.
    """

    status: str | None = None
    waiting: bool = False
    name: str | None = None
    search: str | None = None

    @property
    def is_indexed(self) -> bool:
        """Whether an index leads to the newest of these tasks."""
        return not (self.name or self.search) and self.status in {None, TaskStatus.PENDING, *ERROR_WORDS}


@dataclass(frozen=True, slots=True)
class TaskPage:
    """A page of a list.

    Attributes:
        tasks: Newest first.
        before: Pass this to get the next page; None on the last one. A page may have fewer tasks than were asked for,
            even none, and still have one after it: the look paused.
    """

    tasks: tuple[TaskView, ...]
    before: int | None


@dataclass(frozen=True, slots=True)
class Counts:
    """How many tasks need a look; each stops at 10,000.

    Attributes:
        open: Tasks that have not ended.
        waiting: Those of them that wait at a step.
        failed: Of the newest 10,000 failed tasks.
    """

    open: int
    waiting: int
    failed: int

    @property
    def most(self) -> int:
        """What a count stops at."""
        return _MOST_COUNTED


def find_page(
    connection: Connection, settings: Settings, wanted: TaskFilter, *, before: int | None = None, limit: int = 50
) -> TaskPage:
    """Return a page of tasks, newest first.

    Args:
        connection: What to read with.
        settings: Say the word for a failed task.
        wanted: Which tasks.
        before: Only tasks with a smaller id.
        limit: How many at most.
    """
    conditions = _conditions(wanted)
    if wanted.is_indexed:
        ids = _indexed_ids(connection, wanted, conditions, before, limit + 1)
        rest = ids[limit - 1] if len(ids) > limit else None
    else:
        ids, rest = _look_through(connection, conditions, before, limit)
    tasks = reading_tasks.get_tasks(connection, settings, ids[:limit])
    return TaskPage(tuple(reversed(tasks)), rest)


def count(connection: Connection) -> Counts:
    """Count what needs a look."""
    failed = _status_is(TaskStatus.ERROR)
    return Counts(
        open=_count(connection, [_OPEN]),
        waiting=_count(connection, _conditions(TaskFilter(waiting=True))),
        failed=_count(connection, [failed]),
    )


def _count(connection: Connection, conditions: list[ColumnElement[bool]]) -> int:
    some = select(task_table.c.id).where(*conditions).limit(_MOST_COUNTED).subquery()
    return connection.execute(select(func.count()).select_from(some)).scalar_one()


def _look_through(
    connection: Connection, conditions: list[ColumnElement[bool]], before: int | None, limit: int
) -> tuple[list[int], int | None]:
    """Go through the table from its newest end in windows of ids, until enough was found or time is up."""
    # Each in a query of its own: SQLite goes through the whole table where one asks for both.
    smallest, largest = select(func.min(task_table.c.id)), select(func.max(task_table.c.id))
    edges = connection.execute(select(smallest.scalar_subquery(), largest.scalar_subquery())).one()
    if edges[0] is None:
        return [], None
    first, upper = int(edges[0]), int(edges[1]) + 1
    if before is not None:
        upper = min(upper, before)
    found: list[int] = []
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while upper > first:
        lower = upper - _WINDOW
        found += _ids(connection, conditions, upper, lower, limit + 1 - len(found))
        if len(found) > limit:
            return found, found[limit - 1]
        upper = lower
        if time.monotonic() >= deadline and upper > first:
            return found, upper
    return found, None


def _indexed_ids(
    connection: Connection, wanted: TaskFilter, conditions: list[ColumnElement[bool]], before: int | None, limit: int
) -> list[int]:
    if wanted.status not in ERROR_WORDS:
        return _ids(connection, conditions, before, None, limit)
    # The index puts ids in order for each of the two words.
    found: list[int] = []
    for word in sorted(ERROR_WORDS):
        found += _ids(connection, [*conditions, _word() == literal_column(f"'{word}'")], before, None, limit)
    return sorted(found, reverse=True)[:limit]


def _ids(
    connection: Connection, conditions: list[ColumnElement[bool]], before: int | None, since: int | None, limit: int
) -> list[int]:
    query = select(task_table.c.id).where(*conditions).limit(limit)
    # The first is the same in all rows where an index begins with it; PostgreSQL does not see that.
    query = query.order_by(task_table.c.finished_at.desc()) if _only_open(conditions) else query
    query = query.order_by(task_table.c.id.desc())
    if before is not None:
        query = query.where(task_table.c.id < before)
    if since is not None:
        query = query.where(task_table.c.id >= since)
    return list(connection.execute(query).scalars())


def _conditions(wanted: TaskFilter) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if wanted.waiting:
        uncleared = or_(step_table.c.cleared.is_(False), step_table.c.cleared.is_(None))
        found += [
            _OPEN,
            select(step_table.c.id).where(step_table.c.id == task_table.c.id, uncleared).exists(),
        ]
    if wanted.status is not None:
        found.append(_status_is(wanted.status))
    if wanted.name:
        found.append(_contains(task_table.c.task_name, wanted.name))
    if wanted.search:
        found.append(
            or_(_contains(task_table.c.task_name, wanted.search), _contains(task_table.c.task_log, wanted.search))
        )
    return found


def _only_open(conditions: list[ColumnElement[bool]]) -> bool:
    return any(condition is _OPEN for condition in conditions)


def _word() -> ColumnElement[str]:
    return type_coerce(task_table.c.task_status, String)


def _contains(column: ColumnElement[str], text: str) -> ColumnElement[bool]:
    return func.lower(type_coerce(column, String)).contains(text.lower(), autoescape=True)


def _status_is(status: str) -> ColumnElement[bool]:
    word = _word()
    if status == TaskStatus.PENDING:
        return _OPEN
    if status in ERROR_WORDS:
        # Literals: SQLite uses a partial index only where the query has the very condition of the index.
        return word.in_([literal_column(f"'{error}'") for error in sorted(ERROR_WORDS)])
    ended = task_table.c.finished_at.is_not(None)
    return ended & (word.is_(None) if status == UNKNOWN else word == status)
