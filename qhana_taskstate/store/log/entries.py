"""The log of a task: entries in an append-only table, the newest part in the runner's `task_log` column.

Text that stood in the column before the first entry is taken over as the entry with the negated id of the task, so
that it comes first, and only once although two may do it at the same moment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    LargeBinary,
    case,
    cast,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.orm import Session

from ...clock import now
from ...database.tables.log import log_table
from ...database.tables.runner import task_table
from ..task.locks import lock_task
from .statements import TAKE_OVER
from .text import Entry, clean, column_limit, join, tail

#: How many entries are read at once, at first and at most.
_PAGE, _LARGEST_PAGE = 200, 10_000


def append(connection: Connection, task_id: int, entries: Sequence[str | Entry], *, column: bool = True) -> None:
    """Add entries to the log of a task. Does not commit.

    Args:
        connection: In whose transaction to write.
        task_id: Id of the task.
        entries: Oldest first.
        column: Also bring the runner's column up to date, which locks the row of the task. Without it nothing
            waits for that row; `refresh_column` does the rest.
    """
    if not entries:
        return
    added = [entry if isinstance(entry, Entry) else Entry(clean(entry)) for entry in entries]
    connection.execute(TAKE_OVER.of(connection.dialect.name), {"of_task": task_id, "moment": now()})
    insert_entries(connection, task_id, added)
    if column:
        _append_to_column(connection, task_id, added)


def replace(connection: Connection, task_id: int, text: str) -> None:
    """Put a text in the place of the whole log of a task. Does not commit."""
    limit = column_limit(connection.dialect.name)
    connection.execute(update(task_table).where(task_table.c.id == task_id).values(task_log=tail(clean(text), limit)))
    connection.execute(delete(log_table).where(log_table.c.task_id == task_id))
    if text:
        insert_entries(connection, task_id, [Entry(clean(text))])


def insert_entries(connection: Connection, task_id: int, entries: Sequence[Entry]) -> None:
    """Insert entries, and nothing else; for a task whose column already holds them."""
    if entries:
        connection.execute(insert(log_table), _values(task_id, entries))


def _values(task_id: int, entries: Sequence[Entry]) -> list[dict[str, Any]]:
    moment = now()
    return [{"task_id": task_id, "text": entry.text, "glued": entry.glued, "created_at": moment} for entry in entries]


def read(connection: Connection | Session, task_id: int) -> str:
    """Return the whole log of a task, "" if it has none or there is no such task."""
    rows = connection.execute(
        select(log_table.c.text, log_table.c.glued).where(log_table.c.task_id == task_id).order_by(log_table.c.id)
    )
    entries = [Entry(row.text, row.glued) for row in rows]
    column = connection.execute(select(task_table.c.task_log).where(task_table.c.id == task_id)).scalar() or ""
    if not entries:
        return column
    joined = join(entries)
    if joined.endswith(column):
        return joined
    if len(joined.encode()) > column_limit(_dialect(connection)):
        return joined
    foreign = _foreign_lines(joined, column)
    if not foreign:
        return joined
    if not Counter(joined.split("\n")) - Counter(column.split("\n")):
        return column
    return "\n".join([joined, *foreign])


def read_tail(connection: Connection | Session, task_id: int, limit: int) -> str:
    """Return the newest part of a log, at most `limit` bytes of UTF-8, and before it a line that says what is left out.

    A log that is no longer than that is returned whole. What is left out is not read.
    """
    newest, complete = _newest(connection, task_id, limit)
    whole = read(connection, task_id) if complete else None
    if whole is not None and len(whole.encode()) <= limit:
        return whole
    text = tail(whole if whole is not None else join(newest), limit)
    characters = len(whole) if whole is not None else _characters(connection, task_id)
    return f"[{characters - len(text):,} characters of the log are left out here]\n{text}"


def read_after(connection: Connection, task_id: int, after: int) -> tuple[str | None, int]:
    """Return what of a log follows its first `after` characters, and how many characters the whole log has.

    A reader that knows most of a long log costs what it does not know: the database counts, and sends that alone.

    Returns:
        The text, None if the log has fewer characters; and the number of characters.
    """
    # What a runner wrote into its column only counts in a short log; see `read`.
    characters = _characters(connection, task_id)
    if characters <= column_limit(connection.dialect.name) or after == 0:
        whole = read(connection, task_id)
        return whole[after:] if after <= len(whole) else None, len(whole)
    wanted = characters - after
    if wanted <= 0:
        return None if wanted else "", characters
    newest, _ = _newest(connection, task_id, wanted, measure=len)
    return "".join(entry.text if entry.glued else f"\n{entry.text}" for entry in newest)[-wanted:], characters


def _dialect(connection: Connection | Session) -> str:
    return connection.get_bind().dialect.name if isinstance(connection, Session) else connection.dialect.name


def _characters(connection: Connection | Session, task_id: int) -> int:
    # `length` counts bytes on MySQL, and SQLite does not know `char_length`.
    is_sqlite = _dialect(connection) == "sqlite"
    length = func.length(log_table.c.text) if is_sqlite else func.char_length(log_table.c.text)
    mine = log_table.c.task_id == task_id
    # As `join` has it: no line break before the first text.
    first = connection.execute(
        select(log_table.c.id, log_table.c.glued).where(mine, log_table.c.text != "").order_by(log_table.c.id).limit(1)
    ).one_or_none()
    if first is None:
        return 0
    counted = select(func.sum(length + case((log_table.c.glued, 0), else_=1))).where(mine, log_table.c.id >= first.id)
    return int(connection.execute(counted).scalar_one()) - (not first.glued)


def refresh_column(connection: Connection, task_id: int) -> None:
    """Let the runner's column hold the newest entries; waits for the row of the task. Does not commit.

    What a runner wrote into the column itself is taken over as an entry.
    """
    locked = lock_task(connection, task_id, task_table.c.task_log)
    if locked is None:
        return
    column = locked.task_log or ""
    limit = column_limit(connection.dialect.name)
    newest, complete = _newest(connection, task_id, limit)
    if complete and not newest:
        return
    joined = join(newest)
    if complete and len(joined.encode()) <= limit and not joined.endswith(column):
        foreign = _foreign_lines(joined, column)
        if foreign:
            entry = Entry("\n".join(foreign))
            insert_entries(connection, task_id, [entry])
            joined = join([entry], joined)
    text = tail(joined, limit)
    if text != column:
        connection.execute(update(task_table).where(task_table.c.id == task_id).values(task_log=text))


def _bytes(text: str) -> int:
    return len(text.encode())


def _newest(
    connection: Connection | Session, task_id: int, limit: int, *, measure: Callable[[str], int] = _bytes
) -> tuple[list[Entry], bool]:
    """Return the newest entries, oldest first, that fill `limit` as `measure` counts, and whether these are all.

    Of the oldest of them only the end, if it does not fit as a whole.
    """
    entries: list[Entry] = []
    size, page_size = 0, _PAGE
    last: int | None = None
    # An entry may be as long as a log: no more of it comes over the wire than may be needed.
    is_sqlite = _dialect(connection) == "sqlite"
    text = func.substr(log_table.c.text, -limit - 1) if is_sqlite else func.right(log_table.c.text, limit + 1)
    while size <= limit:
        query = select(log_table.c.id, text.label("text"), log_table.c.glued).where(log_table.c.task_id == task_id)
        if last is not None:
            query = query.where(log_table.c.id < last)
        page = connection.execute(query.order_by(log_table.c.id.desc()).limit(page_size)).all()
        for row in page:
            entries.append(Entry(row.text, row.glued))
            size += measure(row.text) + (not row.glued)
            last = row.id
            if size > limit:
                break
        else:
            if len(page) < page_size:
                return entries[::-1], True
        page_size = min(2 * page_size, _LARGEST_PAGE)
    return entries[::-1], False


def _foreign_lines(joined: str, column: str) -> list[str]:
    """Return the lines of the column that are in no entry, whatever their order: only a runner wrote those."""
    known = Counter(joined.split("\n"))
    foreign = []
    for line in column.split("\n"):
        if known[line]:
            known[line] -= 1
        else:
            foreign.append(line)
    return foreign


def _append_to_column(connection: Connection, task_id: int, entries: Sequence[Entry]) -> None:
    dialect = connection.dialect.name
    text = join(entries)
    column = func.coalesce(task_table.c.task_log, "")
    separator = "" if entries[0].glued else "\n"
    size = len(text.encode()) + len(separator)
    fits = _bytes_of(column, dialect) + size <= column_limit(dialect)
    longer = case((column == "", text), else_=column.concat(separator + text))
    appended = connection.execute(update(task_table).where(task_table.c.id == task_id, fits).values(task_log=longer))
    if not appended.rowcount:
        refresh_column(connection, task_id)


def _bytes_of(text: ColumnElement[Any], dialect: str) -> ColumnElement[int]:
    # SQLite has octet_length only from 3.43 on.
    return func.length(cast(text, LargeBinary)) if dialect == "sqlite" else func.octet_length(text)
