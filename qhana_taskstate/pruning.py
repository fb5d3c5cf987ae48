"""Removes tasks that finished long ago, with all their rows, in short transactions that wait for nobody."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Table, and_, delete, literal, or_, select, text, union_all
from sqlalchemy.exc import IntegrityError, OperationalError

from .database import Database, database_time
from .runner_tables import file_table, link_table, step_table, subscription_table, task_table
from .settings import Settings
from .tables import (
    RECORDS,
    change_table,
    delivery_table,
    execution_table,
    hold_table,
    job_table,
    log_table,
    message_table,
)

logger = logging.getLogger(__name__)


#: How many tasks are looked at in one query, and removed in one transaction.
_PAGE, _BATCH = 1000, 50

#: How many rows of the log, and how many executions, one transaction removes at most.
_ROWS: Final = 2000

#: The longest pause in seconds between two transactions; otherwise it is as long as the one before took.
_LONGEST_PAUSE: Final = 0.1

#: Seconds that one turn of the automatic pruning takes at most; about, since a transaction is not interrupted.
_TURN_SECONDS: Final = 0.3

#: Pause between two rounds of the automatic pruning, as a share of the age; and the longest in seconds.
_ROUND, _LONGEST_ROUND = 1 / 24, 3600.0

#: Milliseconds that a row is waited for which somebody holds although its task is free (PostgreSQL).
_LOCK_MILLISECONDS: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovedOutput:
    """An output of a removed task: the file itself is left to the application.

    Attributes:
        task_id: Id that its task had.
        file_name: Its name.
        storage_provider: Who stores it, such as `local_filesystem`.
        file_storage_data: What finds it there, such as a path.
        security_tag: Its tag.
        file_type: What it holds.
        mimetype: Its MIME type.
    """

    task_id: int
    file_name: str
    storage_provider: str
    file_storage_data: str
    security_tag: str
    file_type: str | None
    mimetype: str | None


#: Is told of outputs after the commit that removed their rows.
OutputsHook = Callable[[Sequence[RemovedOutput]], None]


@dataclass(slots=True)
class Pruned:
    """What pruning did, in numbers of tasks; `outputs` counts files.

    Attributes:
        tasks: Removed; with `dry_run`, to be removed.
        outputs: Of these.
        open: Kept, because an execution or a submission is still open.
        pending: Kept, because a subscriber has still to be told.
        busy: Kept, because somebody held a row of it.
        referenced: Kept, because rows of other tables refer to it.
    """

    tasks: int = 0
    outputs: int = 0
    open: int = 0
    pending: int = 0
    busy: int = 0
    referenced: int = 0


@dataclass(slots=True)
class _Chosen:
    """Of some tasks, those that can go now, and why the others cannot."""

    ids: list[int] = field(default_factory=list)
    open: set[int] = field(default_factory=set)
    pending: set[int] = field(default_factory=set)
    busy: set[int] = field(default_factory=set)


class Pruner:
    """Removes finished tasks of one database.

    Args:
        database: Where.
        settings: Settings of the same `TaskState`.
        on_outputs_removed: Is told of the outputs of removed tasks.
    """

    def __init__(self, database: Database, settings: Settings, on_outputs_removed: OutputsHook | None = None) -> None:
        self._database = database
        self._settings = settings
        self._on_outputs_removed = on_outputs_removed
        self._not_before = 0.0
        #: Id of the last task that this round of the automatic pruning looked at.
        self._after: int | None = None

    def prune(self, older_than: timedelta, *, strangers: bool = False, dry_run: bool = False) -> Pruned:
        """Remove all tasks that finished longer ago; commits every few tasks.

        Args:
            older_than: Age of their end, by the database's clock.
            strangers: Also those that nobody gave to the tracker.
            dry_run: Only count them.

        Returns:
            What was done.

        Raises:
            DatabaseUnavailableError: If the database cannot be reached.
            sqlalchemy.exc.DBAPIError: If it refuses the work.
        """
        pruned = Pruned()
        moment = self._database.read(database_time)
        try:
            cutoff = moment - older_than
        except OverflowError:
            # Nothing is older than the calendar.
            return pruned
        for of_strangers in (False, True) if strangers else (False,):
            after: int | None = None
            while True:
                found, after = self._candidates(cutoff, after, of_strangers)
                for batch in _batches(found):
                    began = time.monotonic()
                    self._remove(batch, cutoff, pruned, dry_run=dry_run)
                    time.sleep(min(time.monotonic() - began, _LONGEST_PAUSE))
                if after is None:
                    break
        return pruned

    @property
    def due(self) -> bool:
        """Whether the automatic pruning is switched on and has something to look at now."""
        return self._settings.prune_after_seconds is not None and time.monotonic() >= self._not_before

    def turn(self) -> int:
        """Do a small portion of the automatic pruning, if it is switched on and due.

        Returns:
            How many tasks were removed.
        """
        age = self._settings.prune_after_seconds
        if age is None or not self.due:
            return 0
        pruned = Pruned()
        until = time.monotonic() + _TURN_SECONDS
        cutoff = self._database.read(database_time) - timedelta(seconds=age)
        found, after = self._candidates(cutoff, self._after, False)
        for batch in _batches(found):
            if time.monotonic() >= until:
                # The rest of the page is looked at again in the next turn.
                return pruned.tasks
            self._remove(batch, cutoff, pruned)
            self._after = batch[-1]
        self._after = after
        if after is None:
            self._not_before = time.monotonic() + min(age * _ROUND, _LONGEST_ROUND)
        return pruned.tasks

    def _candidates(self, cutoff: datetime, after: int | None, strangers: bool) -> tuple[list[int], int | None]:
        """Look at the next page of tasks.

        Returns:
            Ids of those that finished before `cutoff`, or whose own row is gone; and where the next page begins,
            None behind the last one.
        """
        if strangers:
            source = task_table.outerjoin(job_table, job_table.c.task_id == task_table.c.id)
            key = task_table.c.id
        else:
            source = job_table.outerjoin(task_table, task_table.c.id == job_table.c.task_id)
            key = job_table.c.task_id
        statement = select(
            key.label("id"),
            task_table.c.id.label("task"),
            job_table.c.task_id.label("job"),
            task_table.c.finished_at,
            job_table.c.created_at,
        ).select_from(source)
        if after is not None:
            statement = statement.where(key > after)
        rows = self._database.read(
            lambda connection: connection.execute(statement.order_by(key).limit(_PAGE)).all(),
        )
        found = [row.id for row in rows if _is_old(row, cutoff) and (row.job is None) == strangers]
        return found, rows[-1].id if len(rows) == _PAGE else None

    def _remove(self, ids: list[int], cutoff: datetime, pruned: Pruned, *, dry_run: bool = False) -> None:
        try:
            self._remove_batch(ids, cutoff, pruned, dry_run=dry_run)
        except (IntegrityError, OperationalError) as exc:
            if exc.connection_invalidated:
                raise
            if len(ids) > 1:
                # One of them: the others shall not wait for it.
                for task_id in ids:
                    self._remove([task_id], cutoff, pruned, dry_run=dry_run)
                return
            if isinstance(exc, IntegrityError):
                pruned.referenced += 1
                logger.warning("task %s is not removed: rows of another table refer to it", ids[0])
            else:
                pruned.busy += 1
                logger.info("task %s is not removed now: %s", ids[0], type(exc.orig).__name__)

    def _remove_batch(self, ids: list[int], cutoff: datetime, pruned: Pruned, *, dry_run: bool) -> None:
        while True:
            with self._database.transaction() as connection:
                chosen = _choose(connection, ids, cutoff)
                outputs = _outputs(connection, chosen.ids)
                whole = dry_run or _remove_rows(connection, chosen.ids)
            if whole:
                break
            time.sleep(0.01)
        pruned.tasks += len(chosen.ids)
        pruned.outputs += len(outputs)
        pruned.open += len(chosen.open)
        pruned.pending += len(chosen.pending)
        pruned.busy += len(chosen.busy)
        if outputs and not dry_run:
            self._report(outputs)

    def _report(self, outputs: Sequence[RemovedOutput]) -> None:
        if self._on_outputs_removed is None:
            return
        try:
            self._on_outputs_removed(outputs)
        except Exception:
            # Their rows are gone: nobody will be told of them again.
            logger.exception("on_outputs_removed failed for these outputs: %r", outputs)


def _batches(ids: Sequence[int]) -> Iterator[list[int]]:
    for start in range(0, len(ids), _BATCH):
        yield list(ids[start : start + _BATCH])


def _is_old(row: Any, cutoff: datetime) -> bool:
    # Where the plugin runner deleted its row, ours are left over.
    moment = row.finished_at if row.task is not None else row.created_at
    return moment is not None and moment < cutoff


def _choose(connection: Connection, ids: Sequence[int], cutoff: datetime) -> _Chosen:
    """Lock the tasks that can go, without waiting: whoever holds a row of a task keeps it.

    Its job row is locked first, as everywhere, so that nobody begins or subscribes in the meantime.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SET LOCAL lock_timeout = {_LOCK_MILLISECONDS}"))
    chosen = _Chosen()
    jobs = _existing(connection, job_table.c.task_id, ids)
    free = (set(ids) - jobs) | _locked(connection, job_table.c.task_id, jobs)
    chosen.busy = set(ids) - free
    chosen.open = _existing_in(
        connection,
        (execution_table, execution_table.c.closed_at.is_(None)),
        (hold_table, literal(1) == 1),
        ids=free,
    )
    chosen.pending = _existing_in(
        connection,
        (change_table, literal(1) == 1),
        (delivery_table, or_(delivery_table.c.due_at.is_not(None), delivery_table.c.lease.is_not(None))),
        ids=free - chosen.open,
    )
    free -= chosen.open | chosen.pending
    tasks = _existing(connection, task_table.c.id, free)
    old = _locked(
        connection,
        task_table.c.id,
        tasks,
        and_(task_table.c.finished_at.is_not(None), task_table.c.finished_at < cutoff),
    )
    chosen.busy |= tasks - old
    # Without either row somebody else has removed it meanwhile.
    chosen.ids = sorted(((free & jobs) - tasks) | old)
    return chosen


def _existing(connection: Connection, key: Any, ids: Iterable[int]) -> set[int]:
    wanted = sorted(ids)
    return set(connection.execute(select(key).where(key.in_(wanted))).scalars()) if wanted else set()


def _existing_in(connection: Connection, *tables: tuple[Table, Any], ids: set[int]) -> set[int]:
    if not ids:
        return set()
    parts = [select(table.c.task_id).where(table.c.task_id.in_(sorted(ids)), condition) for table, condition in tables]
    return set(connection.execute(union_all(*parts)).scalars())


def _locked(connection: Connection, key: Any, ids: Iterable[int], *conditions: Any) -> set[int]:
    wanted = sorted(ids)
    if not wanted:
        return set()
    statement = select(key).where(key.in_(wanted), *conditions).order_by(key).with_for_update(skip_locked=True)
    return set(connection.execute(statement).scalars())


def _outputs(connection: Connection, ids: Sequence[int]) -> list[RemovedOutput]:
    if not ids:
        return []
    names = (
        "task_id",
        "file_name",
        "storage_provider",
        "file_storage_data",
        "security_tag",
        "file_type",
        "mimetype",
    )
    rows = connection.execute(select(*(file_table.c[name] for name in names)).where(file_table.c.task_id.in_(ids)))
    return [RemovedOutput(**row) for row in rows.mappings()]


def _remove_rows(connection: Connection, ids: Sequence[int]) -> bool:
    """Remove the rows of tasks that the caller has locked.

    Returns:
        False if they have so many that only a part was removed: to be called again in another transaction.
    """
    if not ids:
        return True
    entries = connection.execute(select(log_table.c.id).where(log_table.c.task_id.in_(ids)).limit(_ROWS + 1)).scalars()
    found = list(entries)
    if len(found) > _ROWS:
        connection.execute(delete(log_table).where(log_table.c.id.in_(found[:_ROWS])))
        return False
    executions = connection.execute(
        select(execution_table.c.task_id, execution_table.c.celery_id)
        .where(execution_table.c.task_id.in_(ids))
        .limit(_ROWS + 1)
    ).all()
    if len(executions) > _ROWS:
        for task_id in {row.task_id for row in executions}:
            celery_ids = [row.celery_id for row in executions[:_ROWS] if row.task_id == task_id]
            for table in (message_table, execution_table):
                connection.execute(delete(table).where(table.c.task_id == task_id, table.c.celery_id.in_(celery_ids)))
        return False
    for table in (*RECORDS, subscription_table, link_table, file_table):
        connection.execute(delete(table).where(table.c.task_id.in_(ids)))
    for table, key in ((step_table, step_table.c.id), (task_table, task_table.c.id), (job_table, job_table.c.task_id)):
        connection.execute(delete(table).where(key.in_(ids)))
    return True
