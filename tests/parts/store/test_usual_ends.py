"""The short ways to begin and to end leave what the long ways leave, and know when they are not meant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from sqlalchemy import Connection, Table, insert, select, update
from sqlalchemy.orm import Session

from qhana_taskstate.clock import now
from qhana_taskstate.database.engine import Database
from qhana_taskstate.database.tables.deliveries import change_table
from qhana_taskstate.database.tables.executions import execution_table
from qhana_taskstate.database.tables.jobs import hold_table, job_table
from qhana_taskstate.database.tables.log import log_table
from qhana_taskstate.facts import ExecutionKey, Failure, Progress, Publication, TaskRef
from qhana_taskstate.models.subscription import TaskUpdateSubscription
from qhana_taskstate.models.task import ProcessingTask
from qhana_taskstate.states import ExecutionState, TaskStatus
from qhana_taskstate.store.closing import close, holds, losses
from qhana_taskstate.store.closing.close import Closing
from qhana_taskstate.store.ending.outcome import Outcome
from qhana_taskstate.store.executions import begin, registration
from qhana_taskstate.store.executions.begin import Begun, Runner
from qhana_taskstate.store.task import jobs

pytestmark = pytest.mark.databases("postgresql")

KEY, OTHER = ExecutionKey("a"), ExecutionKey("b")
RUNNER = Runner(worker="w", host="h", pid=1, pid_started=1.0)
QUIET = Closing(key=KEY, name="work", state=ExecutionState.SUCCESS, kept=False)
Change = Callable[[Connection, TaskRef], object]


def publication(key: ExecutionKey) -> Publication:
    return Publication(key, "work", None, "q", now(), None, sent=True)


def begun(connection: Connection, ref: TaskRef) -> Begun:
    return begin.begin(connection, ref, KEY, name="work", runner=RUNNER)


def closed(connection: Connection, ref: TaskRef) -> Outcome:
    return close.close(connection, ref, QUIET)


def with_another(connection: Connection, ref: TaskRef) -> None:
    registration.register(connection, ref.task_id, [publication(OTHER)], deadline_seconds=86400)


def with_another_that_succeeded(connection: Connection, ref: TaskRef) -> None:
    with_another(connection, ref)
    close.close(connection, ref, replace(QUIET, key=OTHER))


def failed_elsewhere(connection: Connection, ref: TaskRef) -> None:
    with_another(connection, ref)
    failure = Failure(type="ValueError", message="bad")
    close.close(connection, ref, replace(QUIET, key=OTHER, state=ExecutionState.FAILURE, failure=failure))


def of_job(**values: Any) -> Change:
    return lambda connection, ref: connection.execute(
        update(job_table).where(job_table.c.task_id == ref.task_id).values(**values)
    )


def of_row(**values: Any) -> Change:
    row: Any = ProcessingTask.__table__
    return lambda connection, ref: connection.execute(update(row).where(row.c.id == ref.task_id).values(**values))


def with_step(connection: Connection, ref: TaskRef) -> None:
    step: Any = ProcessingTask.steps.property.mapper.local_table
    connection.execute(insert(step).values(id=ref.task_id, number=0, step_id="s", href="h", ui_href="u", cleared=False))


def with_subscriber(connection: Connection, ref: TaskRef) -> None:
    row: Any = TaskUpdateSubscription.__table__
    connection.execute(
        insert(row).values(task_id=ref.task_id, webhook_href="https://a/", task_href="https://b/", event_type=None)
    )


def with_hold(connection: Connection, ref: TaskRef) -> None:
    holds.hold(connection, ref.task_id)


@dataclass(frozen=True)
class Case:
    """A task in some state, and how its execution ends.

    Attributes:
        usual: Whether the short way is meant for it.
        changes: What was done to the task before.
        closing: The end.
        token: Whether the message carries the right token.
        held: Whether a plugin holds the row of the task.
        known: Whether the execution is registered and has begun.
    """

    usual: bool
    changes: tuple[Change, ...] = ()
    closing: Closing = field(default=QUIET)
    token: bool = True
    held: bool = False
    known: bool = True


CASES = {
    "alone": Case(True),
    "after progress": Case(True, (of_row(progress_value=3.0, progress_target=10.0),)),
    "after progress without a target": Case(True, (of_row(progress_value=3.0, progress_target=None),)),
    "beside another one": Case(True, (with_another,)),
    "beside a submission": Case(True, (with_hold,)),
    "after the failure of another one": Case(True, (failed_elsewhere,)),
    "after an end by hand": Case(True, (of_row(task_status="ERROR", finished_at=now()),)),
    "while a plugin holds the row": Case(True, held=True),
    "as one of several that shows no count": Case(
        True, (with_another_that_succeeded,), replace(QUIET, counts_members=False)
    ),
    "as one of several": Case(False, (with_another_that_succeeded,)),
    "at an open step": Case(False, (with_step,)),
    "parked": Case(False, (of_job(parked=True),)),
    "open-ended": Case(False, (of_job(open_ended=True),)),
    "without work from outside": Case(False, (of_job(had_work=False),)),
    "with a subscriber": Case(False, (with_subscriber,)),
    "a second time": Case(False, (closed,)),
    "unknown": Case(False, known=False),
    "of another task": Case(False, token=False),
    "with a line": Case(False, closing=replace(QUIET, lines=["done"])),
    "with progress": Case(False, closing=replace(QUIET, progress=Progress(1.0))),
    "with a publication": Case(
        False, closing=replace(QUIET, publications=[publication(OTHER)], deadline_seconds=86400)
    ),
    "with a kept message": Case(False, closing=replace(QUIET, kept=True)),
    "as a failure": Case(
        False, closing=replace(QUIET, state=ExecutionState.FAILURE, failure=Failure(type="E", message="m"))
    ),
}


def make_task(database: Database, case: Case) -> TaskRef:
    with database.transaction() as connection:
        ref = jobs.take_up(connection, jobs.add_task(connection, "work")).ref
        if case.known:
            registration.register(connection, ref.task_id, [publication(KEY)], deadline_seconds=86400)
            begun(connection, ref)
        for change in case.changes:
            change(connection, ref)
    return ref


def end(database: Database, case: Case, ref: TaskRef, *, usually: bool) -> tuple[Outcome, bool]:
    """End the execution; returns what that led to, and whether the short way did it."""
    ref = ref if case.token else TaskRef(ref.task_id, "another")
    if usually and case.closing.is_usual:
        with database.batch() as batch:
            outcome = close.close_usually(batch, ref, case.closing)
        if outcome is not None:
            return outcome, True
    with database.transaction() as connection:
        return close.close(connection, ref, case.closing), False


def picture(database: Database, ref: TaskRef) -> dict[str, list[dict[str, Any]]]:
    """Return all rows of a task, without what is different in every task; of moments only whether they are there."""
    row: Any = ProcessingTask.__table__
    tables: dict[str, tuple[Table, Any]] = {
        "task": (row, row.c.id),
        **{table.name: (table, table.c.task_id) for table in (job_table, execution_table, hold_table, log_table)},
        change_table.name: (change_table, change_table.c.task_id),
    }
    found: dict[str, list[dict[str, Any]]] = {}
    with database.reading() as connection:
        for name, (table, of_task) in tables.items():
            rows = connection.execute(select(table).where(of_task == ref.task_id)).mappings().all()
            found[name] = sorted(({key: _plain(key, value) for key, value in row.items()} for row in rows), key=repr)
    return found


def _plain(key: str, value: Any) -> Any:
    if key in ("id", "task_id", "token", "subscription_id"):
        return None
    return value is not None if key.endswith("_at") else value


@pytest.fixture
def held(database: Database) -> Iterator[Callable[[TaskRef], None]]:
    """Hold the rows of tasks as a plugin does that has changed and not committed them."""
    with ExitStack() as stack:

        def hold(ref: TaskRef) -> None:
            session = stack.enter_context(Session(database.engine))
            session.execute(select(ProcessingTask.id).where(ProcessingTask.id == ref.task_id).with_for_update())

        yield hold


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items()])
def test_short_way_to_end_leaves_what_the_long_way_leaves(
    database: Database, held: Callable[[TaskRef], None], case: Case
) -> None:
    long, short = make_task(database, case), make_task(database, case)
    if case.held:
        held(long)
        held(short)

    expected, _ = end(database, case, long, usually=False)
    outcome, usual = end(database, case, short, usually=True)

    assert (outcome, usual) == (expected, case.usual)
    assert picture(database, short) == picture(database, long)


BEGINNINGS: dict[str, tuple[bool, tuple[Change, ...]]] = {
    "waiting": (True, ()),
    "in a task that has ended": (True, (failed_elsewhere,)),
    "handed back": (
        True,
        (begun, lambda c, ref: losses.hand_back(c, ref, KEY, deadline=now(), lost=True)),
    ),
    "running already": (False, (begun,)),
    "closed": (False, (closed,)),
}


@pytest.mark.parametrize(
    ("usual", "changes"), [pytest.param(*beginning, id=name) for name, beginning in BEGINNINGS.items()]
)
def test_short_way_to_begin_leaves_what_the_long_way_leaves(
    database: Database, usual: bool, changes: tuple[Change, ...]
) -> None:
    case = Case(usual, known=False)
    long, short = make_task(database, case), make_task(database, case)
    with database.transaction() as connection:
        for ref in (long, short):
            registration.register(connection, ref.task_id, [publication(KEY)], deadline_seconds=86400)
            for change in changes:
                change(connection, ref)
        expected = begun(connection, long)

    with database.batch() as batch:
        found = begin.begin_usually(batch, short, KEY, runner=RUNNER, acks_late=False, max_retries=None, moment=now())
    assert (found is not None) == usual
    if found is None:
        with database.transaction() as connection:
            found = begun(connection, short)

    assert found == expected
    assert picture(database, short) == picture(database, long)


def test_message_with_the_token_of_another_task_does_not_begin_the_short_way(database: Database) -> None:
    ref = make_task(database, Case(False, known=False))
    with database.transaction() as connection:
        registration.register(connection, ref.task_id, [publication(KEY)], deadline_seconds=86400)

    with database.batch() as batch:
        stranger = TaskRef(ref.task_id, "another")
        found = begin.begin_usually(
            batch, stranger, KEY, runner=RUNNER, acks_late=False, max_retries=None, moment=now()
        )

    assert found is None
    assert [row["state"] for row in picture(database, ref)[execution_table.name]] == ["QUEUED"]


def test_task_that_ends_the_short_way_shows_it(database: Database, current: Session) -> None:
    ref = make_task(database, CASES["after progress"])

    outcome, _ = end(database, CASES["after progress"], ref, usually=True)

    task = ProcessingTask.get_by_id(ref.task_id)
    assert task is not None
    assert (task.status, task.is_ok, task.progress_value) == ("SUCCESS", True, 10.0)
    assert outcome == Outcome(changed=True, ended=TaskStatus.SUCCESS)
