"""Records the executions of this process: their begin, their reports, their end."""

from __future__ import annotations

import logging
import os
import time
from functools import partial
from itertools import chain

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from ..clock import now
from ..context.execution import Execution
from ..database.engine import IMPATIENT_SECONDS, Database
from ..database.faults import REFUSALS, passes
from ..database.sessions.scopes import Sessions
from ..errors import DatabaseUnavailableError
from ..facts import ExecutionKey, Failure, Publication, Reports, TaskRef
from ..liveness.process import this_host
from ..settings.values import Settings
from ..states import ExecutionState
from ..store.closing import losses
from ..store.executions import registration
from ..store.executions.begin import Begun
from ..store.reports import report
from ..store.task_end import task_row
from ..store.task_end.outcome import Outcome
from .backlog import Fact
from .executions.beginnings import RunningHere, fact_of_begin
from .executions.closings import closing_of, fact_of_close, fact_of_close_elsewhere
from .executions.followers import followers
from .executions.plainer import plainer_reports
from .exits.decision import Exit, decide_unseen
from .recorder import Recorder
from .this_process import own_key
from .upkeep_part import UpkeepPart

logger = logging.getLogger(__name__)


class ExecutionRecorder(Recorder):
    """What one `TaskState` knows of the executions of this process. Arguments as for `Recorder`."""

    def __init__(self, database: Database, sessions: Sessions, settings: Settings, upkeep_part: UpkeepPart) -> None:
        super().__init__(database, sessions, settings, upkeep_part)
        self._strangers: set[TaskRef] = set()

    def begin(self, execution: Execution) -> None:
        """Record that an execution runs, and learn whether its task has already ended.

        While the database is away nothing is learnt: the execution runs.
        """
        self.active_at = time.monotonic()
        # Only a plugin task can be kept from running twice.
        running_here = self._running_besides(execution) if execution.function is not None else None
        execution.registered = self.record(fact_of_begin(execution, running_here, partial(self._begun, execution)))
        execution.begun = True

    def _running_besides(self, execution: Execution) -> RunningHere:
        """Return what runs in this process besides an execution, as it changes."""
        if self._pulse is None:
            return ()
        # It is watched already if something struck while its begin was written.
        self._pulse.remove(execution)
        return self._pulse.running_here

    def _begun(self, execution: Execution, begun: Begun) -> None:
        if not begun.known:
            self._note_stranger(execution.ref, execution.name)
        execution.known = begun.known
        execution.task_ended = begun.task_ended
        execution.closed = begun.closed
        execution.elsewhere = begun.running

    def _note_stranger(self, ref: TaskRef, name: str) -> None:
        if ref not in self._strangers:
            self._strangers.add(ref)
            logger.warning(
                "%s carries a token that task %s does not have (another database?); it is not tracked",
                name,
                ref.task_id,
            )

    def watch(self, execution: Execution) -> None:
        """Renew the lease of an execution and write its reports, until `unwatch`."""
        pulse = self.pulse()
        pulse.add(execution)
        if self.backlog.away or pulse.voucher.tried:
            return
        # Before the task runs: from its first line on, it may keep every other thread from running.
        pulse.voucher.stand_first(self.database, own_key())

    def unwatch(self, execution: Execution) -> None:
        """Stop what `watch` began."""
        if self._pulse is not None:
            self._pulse.remove(execution)

    def release(self, execution: Execution) -> None:
        """Stop what `watch` began for an execution that runs no more, unless its end waits to be written."""
        if not execution.postponed:
            self.unwatch(execution)

    def end_unseen(self, execution: Execution) -> None:
        """Record the end of an execution that left the tracer and of whose end nothing more is known."""
        if execution.closed or execution.postponed:
            return
        end = decide_unseen(
            Exit(state=None, succeeded=execution.succeeded, retried=execution.retried, failure=execution.failure)
        )
        logger.warning("%s[%s] ended without a word", execution.name, execution.key.celery_id)
        try:
            self.close(execution, end.state, end.failure)
        finally:
            self.release(execution)

    def close(self, execution: Execution, state: ExecutionState, failure: Failure | None = None) -> None:
        """Record the end of an execution together with all that it still has to report."""
        if execution.outer is not None and self.must_not_write():
            # Left to the end of the execution inside which it ran eagerly.
            execution.outer.inner.append(closing_of(execution, state, failure, self.settings))
            execution.closed = True
            self.unwatch(execution)
            return
        with execution.writing:
            if execution.postponed:
                return
            closing = closing_of(execution, state, failure, self.settings)
            fact = fact_of_close(execution, closing, partial(self._closed, execution))
            try:
                execution.postponed = True
                self.record(fact)
            except REFUSALS as exc:
                # The database is there and refuses these very values: without them at least the end is recorded.
                logger.exception("the end of %s could not be recorded: %r", execution.name, closing)
                logger.debug("refused: %s", type(exc).__name__)
                self._close_bare(execution, fact)
            except BaseException:
                # A time limit or a cancellation struck in here: nobody knows whether it is written.
                self._write_later(execution, fact)
                raise

    def _close_bare(self, execution: Execution, refused: Fact) -> None:
        try:
            self.record(refused.instead or refused)
        except REFUSALS:
            # Nobody vouches for it any more, so that its process settles it.
            execution.postponed = False
            raise

    def _write_later(self, execution: Execution, fact: Fact) -> None:
        if execution.closed:
            return
        execution.postponed = True
        self.backlog.add(fact)
        if not self.makes_no_threads:
            self.pulse()

    def _closed(self, execution: Execution, outcome: Outcome) -> None:
        execution.closed, execution.postponed = True, False
        self.unwatch(execution)
        if outcome.members_open:
            self.pulse().note_canvas(execution.ref.task_id)
        if not outcome.shown:
            self.finish_showing(execution.ref.task_id, outcome)

    def close_elsewhere(
        self,
        ref: TaskRef | None,
        key: ExecutionKey | None,
        celery_id: str,
        name: str | None,
        state: ExecutionState,
        failure: Failure | None,
    ) -> None:
        """Record the end of an execution that this process does not run.

        Args:
            ref: Its task, if the fact says so; otherwise it is found by the Celery id.
            key: Its key, if the fact says so.
            celery_id: Celery's id.
            name: Name of the Celery task.
            state: A closed state.
            failure: Why.
        """

        def written(found: tuple[int, Outcome] | None) -> None:
            if found is not None:
                self.finish_showing(*found)

        self.record(fact_of_close_elsewhere(ref, key, celery_id, name, state, failure, written))
        self.leave_nothing_open()

    def hand_back(self, ref: TaskRef, key: ExecutionKey, name: str, *, lost: bool, pid: int | None = None) -> None:
        """Record that the broker will deliver the message of an execution again.

        Args:
            ref: Its task.
            key: Its key.
            name: Name of the Celery task.
            lost: Whether it lost its worker; too often, and it is given up.
            pid: The process on this machine that ran it; None for the calling one.
        """
        deadline = now() + self.upkeep_part.redelivery
        process = (this_host(), pid or os.getpid())

        def work(connection: Connection) -> int | None:
            return losses.hand_back(connection, ref, key, deadline=deadline, lost=lost, process=process)

        def written(count: int | None) -> None:
            if count is not None and count > self.settings.max_redeliveries:
                self.upkeep_part.give_up(ref, key, name, count)

        self.record(Fact(ref.task_id, f"{name} goes back to the broker: {key}", work, written))
        self.leave_nothing_open()

    def flush(self, execution: Execution) -> None:
        """Write what an execution reported so far; does nothing if there is nothing."""
        with execution.writing:
            if not execution.dirty or not execution.known:
                return
            reports = execution.take()
            if not (reports.lines or reports.progress or reports.publications):
                return
            written = False
            try:
                shown = self._report(execution, reports)
                written = True
            finally:
                if not written:
                    execution.lines.extendleft(reversed(reports.lines))
                    execution.publications[:0] = reports.publications
                    if reports.progress is not None:
                        execution.give_back_progress()
            if not shown and reports.progress is not None:
                # A plugin holds the row: the next flush shows it.
                execution.give_back_progress()

    def _report(self, execution: Execution, reports: Reports) -> bool:
        """Write reports, or what the database takes of them; returns whether the row of the task shows them."""
        for some in chain((reports,), plainer_reports(reports)):
            try:
                # A plugin with an open write on SQLite must not wait for this thread, which waits for that write.
                with self.database.transaction(patience=IMPATIENT_SECONDS) as connection:
                    return report(
                        connection,
                        execution.ref,
                        execution.key,
                        lines=some.lines,
                        progress=some.progress,
                        publications=some.publications,
                        counts_members=self.settings.canvas_progress,
                        to_come=followers(execution.request),
                        deadline_seconds=self.settings.publish_deadline_seconds,
                    )
            except REFUSALS as exc:
                if self.backlog.note(exc) or passes(exc):
                    raise
                logger.warning(
                    "the database refuses what %s reports (%s): %r", execution.name, type(exc).__name__, some
                )
        return True

    def register(self, ref: TaskRef, publications: list[Publication]) -> None:
        """Record messages that were published outside of any execution or submission."""

        def work(connection: Connection) -> None:
            registration.register(
                connection, ref.task_id, publications, deadline_seconds=self.settings.publish_deadline_seconds
            )

        self.record(Fact(ref.task_id, publications, work))

    def keep(self, ref: TaskRef, publication: Publication) -> None:
        """Keep the message of a publication whose execution is registered already."""
        message = publication.message
        if message is not None:
            self.write(partial(registration.keep_message, task_id=ref.task_id, key=publication.key, message=message))

    def finish_showing(self, task_id: int, outcome: Outcome) -> None:
        """Bring the `ProcessingTask` row up to date if it was locked; upkeep does it if it still is."""
        if outcome.shown:
            return
        try:
            with self.database.transaction() as connection:
                task_row.show(connection, task_id)
        except (DBAPIError, DatabaseUnavailableError):
            logger.info("the row of task %s is locked; its end is shown later", task_id)
