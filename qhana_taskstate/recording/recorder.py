"""Records what happens to the executions of this process."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from .. import facts
from ..clock import now
from ..context.execution import Execution
from ..database.engine import IMPATIENT_SECONDS, Database
from ..database.faults import passes
from ..database.pipeline import Batch
from ..database.sessions.scopes import Sessions
from ..errors import DatabaseUnavailableError
from ..facts import ExecutionKey, Failure, Publication, TaskRef
from ..fork import call_in_child
from ..liveness import advisory_lock
from ..liveness.process import this_host
from ..settings.values import Settings
from ..states import ExecutionState
from ..store.closing import close
from ..store.closing import close as close_closing
from ..store.closing import losses as losses_closing
from ..store.closing.close import Closing
from ..store.closing.reports import report
from ..store.ending import outcome, showing
from ..store.ending.outcome import Outcome
from ..store.executions import begin as begin_executions
from ..store.executions import leases, lookup, registration
from ..store.executions.begin import Begun, begin_usually
from ..texts import in_ascii
from .attempts import attempt_write
from .backlog import Backlog, Fact
from .chores import Chores
from .exits.decision import Exit, decide_unseen
from .followers import followers
from .plainer import Reports, plainer_closings, plainer_reports
from .pulse import Pulse
from .this_process import own_key, runner

logger = logging.getLogger(__name__)


T = TypeVar("T")


#: Pauses in seconds before a short transaction is tried again after a deadlock, a lost connection or a lock that
#: was not had.
_PAUSES = (0.05, 0.2, 0.5)


#: Seconds for which a plugin's task or whoever calls us waits for a short transaction.
_PATIENCE: Final = 2.0


#: Stands for the task of a fact that does not say which.
_UNKNOWN_TASK: Final = -1


#: Seconds that a process takes at its end for what waits for the database.
_FAREWELL_SECONDS: Final = 3.0


#: Of parent processes; kept, since closing them would speak on the parent's sockets.
_abandoned: Final[list[object]] = []


class Tracker:
    """What one `TaskState` records from this process. Makes a thread at the first execution that it sees run.

    Args:
        database: Where to write.
        sessions: The sessions of the same `TaskState`.
        settings: Its settings.
        chores: What its thread takes part in.
    """

    def __init__(self, database: Database, sessions: Sessions, settings: Settings, chores: Chores) -> None:
        self.database = database
        self.sessions = sessions
        self.settings = settings
        self.chores = chores
        #: What waits for the database.
        self.backlog = Backlog(database, settings.keep_facts_seconds)
        #: Lets some worker tell subscribers; set by whoever knows how.
        self.wake_deliveries: Callable[[], None] = lambda: None
        #: When an execution last began or ran here, by the monotonic clock.
        self.active_at = float("-inf")
        #: The process in which a Celery worker was started, if this is one.
        self.parent_pid = 0
        self._pulse: Pulse | None = None
        self._strangers: set[TaskRef] = set()
        call_in_child(self._forget_parent)

    def _forget_parent(self) -> None:
        # Its thread is gone, its lock may be held for ever, and its connection is the parent's.
        _abandoned.append(self._pulse)
        self._pulse = None

    def write(
        self,
        work: Callable[[Connection], T],
        *,
        usual: Callable[[Batch], T | None] | None = None,
        patience: float = _PATIENCE,
    ) -> T:
        """Run `work` in a short transaction; again if the database only stumbled.

        Args:
            work: Writes through the connection that it is given; it may be run several times.
            usual: Does the same in fewer round trips in the usual case, and gives None in others. It is tried first,
                where the driver allows it.
            patience: Seconds after which it is not tried again, and for which each try waits for SQLite's write lock.

        Raises:
            DatabaseUnavailableError: If it cannot be reached after a few tries.
            sqlalchemy.exc.DBAPIError: If it refuses the work: at once if trying again cannot help, else after a few
                tries.
        """
        deadline = time.monotonic() + patience
        for pause in _PAUSES:
            try:
                return self._try(work, usual, patience)
            except (DBAPIError, DatabaseUnavailableError) as exc:
                if not passes(exc) or time.monotonic() + pause > deadline:
                    raise
                logger.debug("trying again in %s s: %s", pause, type(exc).__name__)
                time.sleep(pause)
                usual = None
        return self._try(work, None, patience)

    def _try(self, work: Callable[[Connection], T], usual: Callable[[Batch], T | None] | None, patience: float) -> T:
        if usual is not None and self.database.batches:
            with self.database.batch() as batch:
                result = usual(batch)
            if result is not None:
                return result
        with self.database.transaction(patience=patience) as connection:
            return work(connection)

    def record(self, fact: Fact, *, usual: Callable[[Batch], Any] | None = None) -> bool:
        """Write a fact now or, if the database is away or another one of the task waits, later and in order.

        Takes a few seconds at most, and nearly none once it is known that the database is away.

        Args:
            fact: What happened.
            usual: As for `write`; used only if it is written now.

        Returns:
            Whether it is written.

        Raises:
            sqlalchemy.exc.DBAPIError: If the database is there and refuses it.
        """
        if not self._has_pulse():
            self.backlog.catch_up_if_due()
        if not self.backlog.must_wait(fact.task_id):
            try:
                result = self.write(fact.write, usual=usual)
            except (SQLAlchemyError, DatabaseUnavailableError) as exc:
                if not self.backlog.note(exc) and not passes(exc):
                    if fact.plainer is None:
                        raise
                    logger.warning(
                        "the database refuses a fact of task %s, which is recorded without what it refuses (%s): %r",
                        fact.task_id,
                        type(exc).__name__,
                        fact.told,
                    )
                    return self.record(fact.plainer)
                logger.info("a fact of task %s waits: %s", fact.task_id, type(exc).__name__)
            else:
                fact.written(result)
                return True
        self.backlog.add(fact)
        if self.parent_pid != os.getpid():
            # The parent of a prefork pool must have no thread that talks to the database.
            self.pulse()
        return False

    def _has_pulse(self) -> bool:
        return self._pulse is not None and self._pulse.alive

    def catch_up(self) -> None:
        """Write what waits, if that is possible now. For processes without a thread for it."""
        if self.backlog.away or len(self.backlog):
            self.backlog.catch_up_if_due()
            self._leave_nothing_open()

    def leave(self) -> None:
        """Write what waits, before this process ends; what cannot be written is logged whole."""
        self.backlog.finish(_FAREWELL_SECONDS)

    def begin(self, execution: Execution) -> None:
        """Record that an execution runs, and learn whether its task has already ended.

        While the database is away nothing is learnt: the execution runs.
        """
        request = execution.request
        moment = now()
        self.active_at = time.monotonic()
        facts: dict[str, Any] = {
            "runner": runner(getattr(request, "hostname", None)),
            "acks_late": bool(execution.acks_late),
            "max_retries": execution.max_retries,
        }

        # Only a plugin task can be kept from running twice.
        lives = partial(self._lives, execution) if execution.function is not None else None

        def work(connection: Connection) -> Begun:
            return begin_executions.begin(
                connection,
                execution.ref,
                execution.key,
                name=execution.name,
                parent_id=getattr(request, "parent_id", None),
                moment=moment,
                **facts,
                lives=lives,
            )

        def work_barely(connection: Connection) -> Begun:
            # What a lease needs: by these the process is known to live.
            return begin_executions.begin(
                connection,
                execution.ref,
                execution.key,
                name=in_ascii(execution.name),
                moment=moment,
                runner=runner(None),
                acks_late=facts["acks_late"],
                lives=lives,
            )

        def usual(batch: Batch) -> Begun | None:
            return begin_usually(batch, execution.ref, execution.key, moment=moment, **facts)

        told = f"{execution.name} began at {moment.isoformat()}: {execution.key}"
        written = partial(self._begun, execution)
        bare = Fact(execution.ref.task_id, told, work_barely, written)
        self.record(Fact(execution.ref.task_id, told, work, written, plainer=bare), usual=usual)

        execution.begun = True

    def _begun(self, execution: Execution, begun: Begun) -> None:
        if not begun.known:
            self._note_stranger(execution.ref, execution.name)
        execution.known = begun.known
        execution.task_ended = begun.task_ended
        execution.closed = begun.closed
        execution.elsewhere = begun.running

    def _lives(self, execution: Execution, connection: Connection, lease: leases.Lease) -> bool:
        """Tell whether the process lives, for certain, in which another run of an execution goes on."""
        if lease.host == this_host() and lease.pid == os.getpid():
            return self._pulse is not None and self._pulse.runs_twice(execution)
        return advisory_lock.lives(connection, lease.host, lease.pid, lease.pid_started)

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
        if self.backlog.away:
            return
        # Before the task runs: from its first line on, it may keep every other thread from running.
        pulse.voucher.stand_first(self.database, own_key())

    def pulse(self) -> Pulse:
        """Return the thread of this process that renews leases; it is started if it does not run yet."""
        if self._pulse is None or not self._pulse.alive:
            self._pulse = Pulse(self)
        return self._pulse

    def serve_upkeep(self) -> None:
        """Let the thread of this process take part in the chores of upkeep."""
        self.pulse().does_upkeep = True

    @property
    def makes_no_threads(self) -> bool:
        """Whether this is the parent of a prefork pool: a child that is forked while a thread works is broken."""
        return self.parent_pid == os.getpid() and not self._has_pulse()

    def owe(self) -> None:
        """Let subscribers be told soon, after a commit that owes them something. Waits for nothing."""
        if self.makes_no_threads:
            attempt_write(self.backlog, self.wake_deliveries)
        else:
            self.pulse().owe()

    def tell_at_exit(self, seconds: float) -> None:
        """Wait until the deliveries were woken of what this process owes, before it ends.

        Args:
            seconds: For how long at most; upkeep wakes them then.
        """
        if self._pulse is not None and self._pulse.alive:
            self._pulse.wake_now(seconds)

    def stop(self) -> None:
        """End the thread, and close the connections of this process; the next use begins anew."""
        if self._pulse is not None:
            # First: what the thread still holds would go back to a pool that is gone.
            self._pulse.stop()
        self.database.close()

    def hand_back(self, ref: TaskRef, key: ExecutionKey, name: str, *, lost: bool, pid: int | None = None) -> None:
        """Record that the broker will deliver the message of an execution again.

        Args:
            ref: Its task.
            key: Its key.
            name: Name of the Celery task.
            lost: Whether it lost its worker; too often, and it is given up.
            pid: The process on this machine that ran it; None for the calling one.
        """
        deadline = now() + self.chores.redelivery
        process = (this_host(), pid or os.getpid())

        def work(connection: Connection) -> int | None:
            return losses_closing.hand_back(connection, ref, key, deadline=deadline, lost=lost, process=process)

        def written(losses: int | None) -> None:
            if losses is not None and losses > self.settings.max_redeliveries:
                self.chores.give_up(ref, key, name, losses)

        self.record(Fact(ref.task_id, f"{name} goes back to the broker: {key}", work, written))
        self._leave_nothing_open()

    def _leave_nothing_open(self) -> None:
        if self.makes_no_threads:
            # A child that is forked later must not inherit an open connection.
            self.database.close()

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
        close = decide_unseen(Exit(state=None, succeeded=execution.succeeded, failure=execution.failure))
        logger.warning("%s[%s] ended without a word", execution.name, execution.key.celery_id)
        try:
            self.close(execution, close.state, close.failure)
        finally:
            self.release(execution)

    def must_not_write(self) -> bool:
        """Tell whether a write of ours would wait for an open write of the same thread (SQLite)."""
        return self.database.dialect == "sqlite" and self.sessions.open_write()

    def _closing(self, execution: Execution, state: ExecutionState, failure: Failure | None) -> Closing:
        return Closing(
            key=execution.key,
            name=execution.name,
            state=state,
            failure=failure,
            publications=execution.take_sent(),
            lines=execution.take_lines(),
            progress=execution.take_progress(),
            counts_members=self.settings.canvas_progress,
            to_come=followers(execution.request),
            kept=bool(getattr(execution.task, "resend", False)),
            deadline_seconds=self.settings.publish_deadline_seconds,
        )

    def close(self, execution: Execution, state: ExecutionState, failure: Failure | None = None) -> None:
        """Record the end of an execution together with all that it still has to report."""
        if execution.outer is not None and self.must_not_write():
            # Left to the end of the execution inside which it ran eagerly.
            execution.outer.inner.append(self._closing(execution, state, failure))
            execution.closed = True
            return
        with execution.writing:
            if execution.postponed:
                return
            closing = self._closing(execution, state, failure)

            def work(connection: Connection) -> Outcome:
                for inner in execution.inner:
                    close_closing.close(connection, execution.ref, inner)
                return close_closing.close(connection, execution.ref, closing)

            def close_usually(batch: Batch) -> Outcome | None:
                return close_closing.close_usually(batch, execution.ref, closing)

            usual = close_usually if closing.is_usual and not execution.inner else None
            written = partial(self._closed, execution)
            bare = Fact(
                execution.ref.task_id,
                f"{execution.name} ended: {execution.key}",
                partial(_close_bare, execution.ref, execution.key, execution.name),
                written,
            )
            fact = Fact(execution.ref.task_id, closing, work, written, instead=bare)
            fact.plainer, barest = (
                Fact(execution.ref.task_id, plain, partial(_close_plainly, execution, plain), written, instead=bare)
                for plain in plainer_closings(closing)
            )
            fact.plainer.plainer = barest
            try:
                execution.postponed = True
                self.record(fact, usual=usual)
            except DBAPIError as exc:
                # The database is there and refuses these very values: without them at least the end is told.
                logger.exception("the end of %s could not be recorded: %r", execution.name, closing)
                logger.debug("refused: %s", type(exc.orig).__name__)
                try:
                    self.record(bare)
                except DBAPIError:
                    # Nobody vouches for it any more, so that its process settles it.
                    execution.postponed = False
                    raise
            except BaseException:
                # A time limit or a cancellation struck in here: nobody knows whether it is written.
                self._write_later(execution, fact)
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
        if outcome.members_open and self.settings.canvas_progress:
            self.pulse().note_canvas(execution.ref.task_id)
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

        def work(connection: Connection) -> tuple[int, Outcome] | None:
            task, execution_key, task_name = ref, key, name
            if task is None or execution_key is None:
                found = lookup.find_open(connection, celery_id, key)
                if found is None:
                    return None
                task, execution_key, task_name = found
            closing = Closing(key=execution_key, name=task_name or "task", state=state, failure=failure)
            return task.task_id, close_closing.close(connection, task, closing)

        def written(found: tuple[int, Outcome] | None) -> None:
            if found is not None:
                self.finish_showing(*found)

        told = f"{name} ended as {state.value}: {key or celery_id}, {failure!r}"
        self.record(Fact(ref.task_id if ref is not None else _UNKNOWN_TASK, told, work, written))
        self._leave_nothing_open()

    def flush(self, execution: Execution) -> None:
        """Write what an execution reported so far; does nothing if there is nothing."""
        with execution.writing:
            if not execution.dirty or not execution.known:
                return
            reports = Reports(execution.take_lines(), execution.take_progress(), execution.take_sent())
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
                    execution.progress_dirty = execution.progress_dirty or reports.progress is not None
            if not shown and reports.progress is not None:
                # A plugin holds the row: the next flush shows it.
                execution.progress_dirty = True

    def _report(self, execution: Execution, reports: Reports) -> bool:
        """Write reports, or what the database takes of them; returns whether the row of the task shows them."""
        for told in (reports, *plainer_reports(reports)):
            try:
                # A plugin with an open write on SQLite must not wait for this thread, which waits for that write.
                with self.database.transaction(patience=IMPATIENT_SECONDS) as connection:
                    return report(
                        connection,
                        execution.ref,
                        execution.key,
                        lines=told.lines,
                        progress=told.progress,
                        publications=told.publications,
                        counts_members=self.settings.canvas_progress,
                        to_come=followers(execution.request),
                        deadline_seconds=self.settings.publish_deadline_seconds,
                    )
            except DBAPIError as exc:
                if self.backlog.note(exc) or passes(exc):
                    raise
                logger.warning(
                    "the database refuses what %s reports (%s): %r", execution.name, type(exc).__name__, told
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
            self.write(lambda connection: registration.keep_message(connection, ref.task_id, publication.key, message))

    def finish_showing(self, task_id: int, outcome: Outcome) -> None:
        """Bring the `ProcessingTask` row up to date if it was locked; upkeep does it if it still is."""
        if outcome.shown:
            return
        try:
            with self.database.transaction() as connection:
                showing.show(connection, task_id)
        except (DBAPIError, DatabaseUnavailableError):
            logger.info("the row of task %s is locked; its end is shown later", task_id)


def _close_plainly(execution: Execution, closing: close.Closing, connection: Connection) -> outcome.Outcome:
    """End an execution, and what ran eagerly inside it, with what the database takes."""
    for inner in execution.inner:
        *_, barest = plainer_closings(inner)
        close.close(connection, execution.ref, barest)
    return close.close(connection, execution.ref, closing)


def _close_bare(ref: TaskRef, key: ExecutionKey, name: str, connection: Connection) -> outcome.Outcome:
    """End an execution of which nothing more is known than that it ended."""
    failure = facts.Failure(type="FactLostError", message="how it ended could not be recorded; see the worker's log")
    return close.close(connection, ref, close.Closing(key=key, name=name, state=ExecutionState.LOST, failure=failure))
