"""Removes tasks that finished long ago, in turns."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import and_, select
from sqlalchemy.exc import IntegrityError, OperationalError

from ..database.dialects import database_time
from ..database.engine import Database
from ..database.tables.jobs import job_table
from ..database.tables.runner import task_table
from ..settings.values import Settings
from .removal import RemovedOutput, choose, is_old, outputs_of, remove_rows

logger = logging.getLogger(__name__)


#: How many tasks are looked at in one query, and removed in one transaction at least and at most. A transaction takes
#: some twenty statements whatever it removes: fewer tasks would make it hardly shorter.
_PAGE, _FEWEST, _BATCH = 1000, 10, 50


#: Seconds that one transaction is to take, about: for so long others may wait for a row that goes.
_SHORT, _LONG = 0.01, 0.03


#: The longest pause in seconds between two transactions; otherwise it is as long as the one before took.
_LONGEST_PAUSE: Final = 0.1


#: Seconds that one turn of the automatic pruning takes at most; about, since a transaction is not interrupted.
_TURN_SECONDS: Final = 0.3


#: Pause between two rounds of the automatic pruning, as a share of the age; and the longest in seconds.
_ROUND, _LONGEST_ROUND = 1 / 24, 3600.0


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
        #: How many tasks one transaction removes: as many as that machine does in a moment.
        self._batch = _FEWEST

    def prune(self, older_than: timedelta, *, strangers: bool = False, dry_run: bool = False) -> Pruned:
        """Remove all tasks that finished longer ago; commits every few tasks.

        Args:
            older_than: Age of their end, by the database's clock.
            strangers: Also those that nobody gave to the recorder.
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
                for batch in self._batches(found):
                    took = self._remove_timed(batch, cutoff, pruned, dry_run=dry_run)
                    time.sleep(min(took, _LONGEST_PAUSE))
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
        for batch in self._batches(found):
            if time.monotonic() >= until:
                # The rest of the page is looked at again in the next turn.
                return pruned.tasks
            self._remove_timed(batch, cutoff, pruned)
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
        key, other = (task_table.c.id, job_table.c.task_id) if strangers else (job_table.c.task_id, task_table.c.id)
        # Of both: PostgreSQL goes through the other table from its beginning at each page otherwise.
        same = key == other if after is None else and_(key == other, other > after)
        source = key.table.outerjoin(other.table, same)
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
        found = [row.id for row in rows if is_old(row, cutoff) and (row.job is None) == strangers]
        return found, rows[-1].id if len(rows) == _PAGE else None

    def _batches(self, ids: Sequence[int]) -> Iterator[list[int]]:
        start = 0
        while start < len(ids):
            batch = list(ids[start : start + min(self._batch, _BATCH)])
            start += len(batch)
            yield batch

    def _remove_timed(self, ids: list[int], cutoff: datetime, pruned: Pruned, *, dry_run: bool = False) -> float:
        """Remove tasks in one transaction; the next takes fewer where this one took long, and more if it was short.

        Returns:
            Seconds that it took.
        """
        began = time.monotonic()
        self._remove(ids, cutoff, pruned, dry_run=dry_run)
        seconds = time.monotonic() - began
        if seconds > _LONG:
            self._batch = max(self._batch // 2, _FEWEST)
        elif seconds < _SHORT:
            self._batch = min(2 * self._batch, _BATCH)
        return seconds

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
                chosen = choose(connection, ids, cutoff)
                outputs = outputs_of(connection, chosen.ids)
                whole = dry_run or remove_rows(connection, chosen.ids)
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
