"""Old tasks are removed with all their rows, in small steps, and nothing else is."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import event, func, insert, select, text, update
from sqlalchemy.orm import Session

from qhana_taskstate.clock import now
from qhana_taskstate.database.engine import Database
from qhana_taskstate.database.tables.deliveries import change_table, delivery_table
from qhana_taskstate.database.tables.executions import execution_table, message_table
from qhana_taskstate.database.tables.jobs import hold_table, job_table
from qhana_taskstate.database.tables.log import log_table
from qhana_taskstate.facts import ExecutionKey, Publication
from qhana_taskstate.models.file import TaskFile
from qhana_taskstate.models.link import TaskLink
from qhana_taskstate.models.step import Step
from qhana_taskstate.models.subscription import TaskUpdateSubscription
from qhana_taskstate.models.task import ProcessingTask
from qhana_taskstate.settings.values import Settings
from qhana_taskstate.states import ExecutionState, TaskStatus
from qhana_taskstate.store.closing import close, holds
from qhana_taskstate.store.executions import registration
from qhana_taskstate.store.task import jobs
from qhana_taskstate.store.task_end import from_outside
from qhana_taskstate.upkeep import pruning, removal
from qhana_taskstate.upkeep.pruning import Pruned, Pruner
from qhana_taskstate.upkeep.removal import RemovedOutput

pytestmark = pytest.mark.mariadb

DAY = timedelta(days=1)
MODELS: tuple[type[Any], ...] = (ProcessingTask, Step, TaskFile, TaskLink, TaskUpdateSubscription)
TABLES = (
    *(model.__table__ for model in MODELS),
    job_table,
    execution_table,
    hold_table,
    log_table,
    message_table,
    change_table,
    delivery_table,
)


def rows(database: Database) -> dict[str, int]:
    """How many rows each table has."""
    with database.reading() as connection:
        return {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one() for table in TABLES
        }


def publication(name: str) -> Publication:
    return Publication(ExecutionKey(name), "plugin.work", None, "celery", now(), None, sent=True)


def make(session: Session, database: Database, *, ours: bool = True, age: timedelta = 2 * DAY) -> int:
    """Make a task with a row in every table, ended so long ago."""
    task = ProcessingTask("old")
    task.save(commit=True)
    task.add_next_step(href="h", ui_href="u", step_id="s")
    task.clear_previous_step()
    session.add(TaskFile(task, "tag", "local_filesystem", "out.csv", f"/data/{task.id}.csv", "a/b", "text/csv"))
    session.add(TaskLink(task, "t", "https://x.example/"))
    session.add(TaskUpdateSubscription(task, "https://x.example/hook", "https://me.example/1"))
    task.add_task_log_entry("a line")
    session.commit()
    task_id = int(task.id)
    with database.transaction() as connection:
        if ours:
            ref = jobs.take_up(connection, task_id).ref
            registration.register(connection, task_id, [publication("a")], deadline_seconds=86400)
            close.close(
                connection,
                ref,
                close.Closing(key=ExecutionKey("a"), name="plugin.work", state=ExecutionState.SUCCESS),
            )
            connection.execute(update(job_table).where(job_table.c.task_id == task_id).values(parked=False))
        from_outside.end(connection, task_id, TaskStatus.SUCCESS)
        if not ours:
            connection.execute(job_table.delete().where(job_table.c.task_id == task_id))
        connection.execute(change_table.delete())
    grow_old(database, task_id, age)
    return task_id


def grow_old(database: Database, task_id: int, age: timedelta) -> None:
    with database.transaction() as connection:
        task = ProcessingTask.__table__
        connection.execute(update(task).where(task.c.id == task_id).values(finished_at=now() - age))
        connection.execute(update(job_table).where(job_table.c.task_id == task_id).values(created_at=now() - age))


@pytest.fixture
def told() -> list[RemovedOutput]:
    return []


@pytest.fixture
def pruner(database: Database, told: list[RemovedOutput]) -> Pruner:
    return Pruner(database, Settings(prune_after_seconds=86400), told.extend)


def test_old_task_goes_with_all_its_rows_and_its_outputs_are_told(
    current: Session, database: Database, pruner: Pruner, told: list[RemovedOutput]
) -> None:
    old = make(current, database)
    young = make(current, database, age=timedelta(hours=1))
    before = rows(database)

    assert pruner.prune(DAY) == Pruned(tasks=1, outputs=1)

    left = rows(database)
    assert all(left[name] * 2 == count for name, count in before.items()), (before, left)
    assert [(output.task_id, output.file_storage_data) for output in told] == [(old, f"/data/{old}.csv")]
    current.expire_all()
    assert ProcessingTask.get_by_id(old) is None
    assert ProcessingTask.get_by_id(young) is not None
    assert pruner.prune(timedelta(0)) == Pruned(tasks=1, outputs=1)
    assert set(rows(database).values()) == {0}


def test_dry_run_counts_and_removes_nothing(
    current: Session, database: Database, pruner: Pruner, told: list[RemovedOutput]
) -> None:
    make(current, database)
    before = rows(database)

    assert pruner.prune(DAY, dry_run=True) == Pruned(tasks=1, outputs=1)

    assert rows(database) == before
    assert told == []


def test_task_that_has_not_ended_stays(current: Session, database: Database, pruner: Pruner) -> None:
    task = ProcessingTask("pending")
    task.save(commit=True)
    with database.transaction() as connection:
        jobs.take_up(connection, task.id)
        connection.execute(update(job_table).values(created_at=now() - 9 * DAY))

    assert pruner.prune(timedelta(0)) == Pruned()


def test_task_with_an_open_execution_or_hold_stays(current: Session, database: Database, pruner: Pruner) -> None:
    executing, held = make(current, database), make(current, database)
    with database.transaction() as connection:
        registration.register(connection, executing, [publication("b")], deadline_seconds=86400)
        holds.hold(connection, held)
    before = rows(database)

    assert pruner.prune(DAY) == Pruned(open=2)
    assert rows(database) == before


def test_task_whose_subscribers_have_still_to_be_told_stays(
    current: Session, database: Database, pruner: Pruner
) -> None:
    changed, due, told = make(current, database), make(current, database), make(current, database)
    with database.transaction() as connection:
        connection.execute(
            insert(change_table).values(subscription_id=1, task_id=changed, event="status", changed_at=now())
        )
        for number, (task_id, due_at) in enumerate(((due, now()), (told, None))):
            connection.execute(
                insert(delivery_table).values(
                    host="receiver",
                    subscription_id=number,
                    event="status",
                    task_id=task_id,
                    sequence=1,
                    attempts=0,
                    due_at=due_at,
                )
            )

    assert pruner.prune(DAY) == Pruned(tasks=1, outputs=1, pending=2)

    with database.reading() as connection:
        assert set(connection.execute(select(job_table.c.task_id)).scalars()) == {changed, due}


def test_task_that_nobody_gave_us_stays_unless_asked_for(current: Session, database: Database, pruner: Pruner) -> None:
    stranger = make(current, database, ours=False)

    assert pruner.prune(DAY) == Pruned()
    assert ProcessingTask.get_by_id(stranger) is not None

    assert pruner.prune(DAY, strangers=True) == Pruned(tasks=1, outputs=1)
    current.expire_all()
    assert ProcessingTask.get_by_id(stranger) is None


def test_what_is_left_of_a_task_that_the_runner_deleted_goes(
    current: Session, database: Database, pruner: Pruner
) -> None:
    task_id = make(current, database)
    with database.transaction() as connection:
        for model in MODELS[::-1]:
            connection.execute(model.__table__.delete())

    assert pruner.prune(DAY) == Pruned(tasks=1)
    assert set(rows(database).values()) == {0}
    assert task_id


def test_task_to_which_another_table_refers_stays_and_the_others_go(
    current: Session, database: Database, pruner: Pruner
) -> None:
    first, second = make(current, database), make(current, database)
    with database.engine.begin() as connection:
        key = 'FOREIGN KEY (task_id) REFERENCES "ProcessingTask" (id)'
        if database.dialect in {"mysql", "mariadb"}:
            key = key.replace('"', "`")
        connection.execute(text(f"CREATE TABLE host_report (task_id INTEGER NOT NULL, {key})"))
        connection.execute(text("INSERT INTO host_report VALUES (:id)"), {"id": first})

    assert pruner.prune(DAY) == Pruned(tasks=1, outputs=1, referenced=1)

    with database.reading() as connection:
        assert list(connection.execute(select(job_table.c.task_id)).scalars()) == [first]
    assert second


@pytest.mark.databases("postgresql", "mariadb")
@pytest.mark.parametrize("table", [job_table, ProcessingTask.__table__, TaskFile.__table__])
def test_task_that_somebody_holds_is_left_alone_and_nobody_is_waited_for(
    current: Session, database: Database, pruner: Pruner, table: Any
) -> None:
    held, free = make(current, database), make(current, database)
    key = table.c.task_id if "task_id" in table.c else table.c.id
    with database.engine.connect() as other, other.begin():
        other.execute(select(key).where(key == held).with_for_update()).all()

        assert pruner.prune(DAY) == Pruned(tasks=1, outputs=1, busy=1)

    with database.reading() as connection:
        assert list(connection.execute(select(job_table.c.task_id)).scalars()) == [held]
    assert free


def test_two_at_once_remove_each_task_once(current: Session, database: Database, told: list[RemovedOutput]) -> None:
    ids = [make(current, database) for _ in range(30)]
    current.close()
    results: list[Pruned] = []
    start = threading.Barrier(2)

    def prune() -> None:
        start.wait()
        results.append(Pruner(database, Settings(), told.extend).prune(DAY))

    threads = [threading.Thread(target=prune) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # What each of them found held by the other waits for the next turn.
    results.append(Pruner(database, Settings(), told.extend).prune(DAY))

    assert sorted(output.task_id for output in told) == ids
    assert sum(result.tasks for result in results) == len(ids)
    assert set(rows(database).values()) == {0}


def test_task_with_a_huge_log_and_many_executions_goes_in_several_transactions(
    current: Session, database: Database, pruner: Pruner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "_ROWS", 50)
    task_id = make(current, database)
    with database.transaction() as connection:
        connection.execute(
            insert(log_table),
            [{"task_id": task_id, "text": "x", "glued": False, "created_at": now()} for _ in range(220)],
        )
        row = {"task_id": task_id, "retries": 0, "nesting": 0, "name": "n", "state": "SUCCESS", "closed_at": now()}
        connection.execute(
            insert(execution_table),
            [{**row, "celery_id": f"c{number}", "deliveries": 1, "losses": 0} for number in range(120)],
        )
    commits = 0

    def count(_: object) -> None:
        nonlocal commits
        commits += 1

    event.listen(database.engine, "commit", count)
    assert pruner.prune(DAY) == Pruned(tasks=1, outputs=1)
    event.remove(database.engine, "commit", count)

    assert set(rows(database).values()) == {0}
    assert commits > 6


def test_hook_that_fails_stops_nothing_and_its_outputs_are_logged(
    current: Session, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    task_id = make(current, database)

    def fail(outputs: Sequence[RemovedOutput]) -> None:
        raise RuntimeError("the store is away")

    assert Pruner(database, Settings(), fail).prune(DAY) == Pruned(tasks=1, outputs=1)
    assert f"/data/{task_id}.csv" in caplog.text


def test_automatic_pruning_is_off_by_default(current: Session, database: Database) -> None:
    make(current, database, age=10000 * DAY)

    assert Pruner(database, Settings()).turn() == 0
    assert rows(database)["ProcessingTask"] == 1


def test_automatic_pruning_goes_on_where_it_stopped(
    current: Session, database: Database, pruner: Pruner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "_BATCH", 2)
    monkeypatch.setattr(pruning, "_PAGE", 5)
    for _ in range(12):
        make(current, database)
    young = make(current, database, age=timedelta(hours=1))

    removed = [pruner.turn() for _ in range(4)]

    assert sum(removed) == 12
    assert max(removed) <= 5
    with database.reading() as connection:
        assert list(connection.execute(select(job_table.c.task_id)).scalars()) == [young]


def test_age_beyond_the_calendar_removes_nothing(current: Session, database: Database, pruner: Pruner) -> None:
    make(current, database)

    assert pruner.prune(timedelta(days=999999)) == Pruned()


def test_transactions_become_smaller_where_they_take_long_and_larger_where_they_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pruner = Pruner(Database("sqlite://"), Settings())
    clock, seconds = [0.0], 0.0
    seen: list[int] = []

    def remove(_pruner: Pruner, ids: list[int], *_: object, **__: object) -> None:
        seen.append(len(ids))
        clock[0] += seconds

    monkeypatch.setattr(Pruner, "_remove", remove)
    monkeypatch.setattr(pruning, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    for batch in pruner._batches(range(300)):
        if len(seen) == 5:
            seconds = 1.0
        pruner._remove_timed(batch, now(), Pruned())

    # Never so few that what each transaction costs anyway is more than what it removes.
    assert seen[:9] == [10, 20, 40, 50, 50, 50, 25, 12, 10]
    assert min(seen[:-1]) == 10
