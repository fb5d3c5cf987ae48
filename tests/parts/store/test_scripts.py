"""A script leads to the same however it is sent: in one message, or one statement after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from sqlalchemy import Connection, Table, insert, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from qhana_taskstate.clock import now
from qhana_taskstate.database.engine import Database
from qhana_taskstate.database.scripts import pipeline
from qhana_taskstate.database.tables.deliveries import change_table
from qhana_taskstate.database.tables.executions import execution_table
from qhana_taskstate.database.tables.jobs import hold_table, job_table
from qhana_taskstate.database.tables.log import log_table
from qhana_taskstate.database.tables.runner import task_table
from qhana_taskstate.facts import ExecutionKey, Failure, Progress, Publication, TaskRef
from qhana_taskstate.models.subscription import TaskUpdateSubscription
from qhana_taskstate.models.task import ProcessingTask
from qhana_taskstate.states import ExecutionState, TaskStatus
from qhana_taskstate.store.closing import close, holds, losses
from qhana_taskstate.store.closing.close import Closing
from qhana_taskstate.store.executions import begin, registration
from qhana_taskstate.store.executions.begin import Begun, Runner
from qhana_taskstate.store.reports import report
from qhana_taskstate.store.task import jobs
from qhana_taskstate.store.task_end.outcome import Outcome

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


def with_a_line(connection: Connection, ref: TaskRef) -> None:
    report(connection, ref, KEY, lines=["before"], deadline_seconds=86400)


def with_hold(connection: Connection, ref: TaskRef) -> None:
    holds.hold(connection, ref.task_id)


@dataclass(frozen=True)
class Case:
    """A task in some state, and how its execution ends.

    Attributes:
        changes: What was done to the task before.
        closing: The end.
        token: Whether the message carries the right token.
        held: Whether a plugin holds the row of the task.
        known: Whether the execution is registered and has begun.
    """

    changes: tuple[Change, ...] = ()
    closing: Closing = field(default=QUIET)
    token: bool = True
    held: bool = False
    known: bool = True


CASES = {
    "alone": Case(),
    "after progress": Case((of_row(progress_value=3.0, progress_target=10.0),)),
    "after progress without a target": Case((of_row(progress_value=3.0, progress_target=None),)),
    "beside another one": Case((with_another,)),
    "beside a submission": Case((with_hold,)),
    "after the failure of another one": Case((failed_elsewhere,)),
    "after an end by hand": Case((of_row(task_status="ERROR", finished_at=now()),)),
    "while a plugin holds the row": Case(held=True),
    "as one of several that shows no count": Case((with_another_that_succeeded,), replace(QUIET, counts_members=False)),
    "as one of several": Case((with_another_that_succeeded,)),
    "at an open step": Case((with_step,)),
    "parked": Case((of_job(parked=True),)),
    "open-ended": Case((of_job(open_ended=True),)),
    "without work from outside": Case((of_job(had_work=False),)),
    "with a subscriber": Case((with_subscriber,)),
    "a second time": Case((closed,)),
    "unknown": Case(known=False),
    "of another task": Case(token=False),
    "with lines, progress and a subscriber": Case(
        (with_subscriber,), replace(QUIET, lines=["a", "b"], progress=Progress(1.0))
    ),
    "with a line after another one": Case((with_a_line,), replace(QUIET, lines=["done"])),
    "with a line after text of a runner": Case((of_row(task_log="from a runner"),), replace(QUIET, lines=["done"])),
    "with a line": Case(closing=replace(QUIET, lines=["done"])),
    "with progress": Case(closing=replace(QUIET, progress=Progress(1.0))),
    "with a publication": Case(closing=replace(QUIET, publications=[publication(OTHER)], deadline_seconds=86400)),
    "with a kept message": Case(closing=replace(QUIET, kept=True)),
    "as a failure": Case(closing=replace(QUIET, state=ExecutionState.FAILURE, failure=Failure(type="E", message="m"))),
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


def end(database: Database, case: Case, ref: TaskRef, *, at_once: bool) -> Outcome:
    """End the execution."""
    script = close.close_script(ref if case.token else TaskRef(ref.task_id, "another"), case.closing)
    if at_once:
        return script.run(database)
    with database.transaction() as connection:
        return script(connection)


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
def test_end_in_one_message_leaves_what_one_statement_after_the_other_leaves(
    database: Database, held: Callable[[TaskRef], None], case: Case
) -> None:
    slow, quick = make_task(database, case), make_task(database, case)
    if case.held:
        held(slow)
        held(quick)

    expected = end(database, case, slow, at_once=False)

    assert end(database, case, quick, at_once=True) == expected
    assert picture(database, quick) == picture(database, slow)


BEGINNINGS: dict[str, tuple[Change, ...]] = {
    "waiting": (),
    "in a task that has ended": (failed_elsewhere,),
    "handed back": (begun, lambda c, ref: losses.hand_back(c, ref, KEY, deadline=now(), lost=True)),
    "running already": (begun,),
    "closed": (closed,),
}


@pytest.mark.parametrize("changes", [pytest.param(changes, id=name) for name, changes in BEGINNINGS.items()])
def test_beginning_in_one_message_leaves_what_one_statement_after_the_other_leaves(
    database: Database, changes: tuple[Change, ...]
) -> None:
    case = Case(known=False)
    slow, quick = make_task(database, case), make_task(database, case)
    with database.transaction() as connection:
        for ref in (slow, quick):
            registration.register(connection, ref.task_id, [publication(KEY)], deadline_seconds=86400)
            for change in changes:
                change(connection, ref)
        expected = begun(connection, slow)

    found = begin.begin_script(quick, KEY, name="work", runner=RUNNER).run(database)

    assert found == expected
    assert picture(database, quick) == picture(database, slow)


def test_message_with_the_token_of_another_task_does_not_begin(database: Database) -> None:
    ref = make_task(database, Case(known=False))
    with database.transaction() as connection:
        registration.register(connection, ref.task_id, [publication(KEY)], deadline_seconds=86400)

    stranger = TaskRef(ref.task_id, "another")
    found = begin.begin_script(stranger, KEY, name="work", runner=RUNNER).run(database)

    assert found == Begun(known=False)
    assert [row["state"] for row in picture(database, ref)[execution_table.name]] == ["QUEUED"]


def test_release_of_a_hold_is_one_message(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = make_task(database, Case(known=False))
    with database.transaction() as connection:
        hold_id = holds.hold(connection, ref.task_id)
    messages: list[int] = []
    send = pipeline._Wire._send

    def counting(wire: Any, statements: Any) -> Any:
        messages.append(len(statements))
        return send(wire, statements)

    monkeypatch.setattr(pipeline._Wire, "_send", counting)
    outcome = holds.release_script(ref, hold_id, [], deadline_seconds=86400).run(database)

    assert (outcome.ended, outcome.shown, len(messages)) == (TaskStatus.SUCCESS, True, 1)
    assert picture(database, ref)[hold_table.name] == []


@pytest.mark.parametrize("of_hold", [False, True], ids=["of an execution", "of a hold"])
def test_end_that_is_refused_in_its_last_write_leaves_nothing(database: Database, of_hold: bool) -> None:
    ref = make_task(database, Case(known=not of_hold))
    script = close.close_script(ref, replace(QUIET, lines=["done"]))
    if of_hold:
        with database.transaction() as connection:
            hold_id = holds.hold(connection, ref.task_id)
        script = holds.release_script(ref, hold_id, [], deadline_seconds=86400)
    before = picture(database, ref)
    table = f'"{task_table.name}"'
    refusing = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused'; END $$"
    with database.transaction() as connection:
        connection.exec_driver_sql(refusing)
        connection.exec_driver_sql(
            f"CREATE TRIGGER refusing BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
    try:
        with pytest.raises(DBAPIError, match="refused"):
            script.run(database)
        assert picture(database, ref) == before
    finally:
        with database.transaction() as connection:
            connection.exec_driver_sql("DROP FUNCTION refuse CASCADE")


def test_task_that_ends_shows_all_that_its_execution_brought(database: Database, current: Session) -> None:
    ref = make_task(database, Case())
    closing = replace(QUIET, lines=["half", "done"], progress=Progress(3.0, 0.0, 10.0, "rows"))

    outcome = close.close_script(ref, closing).run(database)

    task = ProcessingTask.get_by_id(ref.task_id)
    assert task is not None
    assert (task.status, task.is_ok, task.progress_value, task.progress_unit) == ("SUCCESS", True, 10.0, "rows")
    with database.reading() as connection:
        column = select(ProcessingTask.__table__.c.task_log).where(ProcessingTask.__table__.c.id == ref.task_id)
        assert (task.task_log, connection.execute(column).scalar_one()) == ("half\ndone", "half\ndone")
    assert outcome == Outcome(changed=True, ended=TaskStatus.SUCCESS)
