"""The chores: cheap when there are none, done by one at a time, and patient with messages that seem to be missing."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import timedelta
from threading import Event
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from qhana_taskstate.broker.lost_messages import Sought
from qhana_taskstate.clock import now
from qhana_taskstate.database.engine import Database
from qhana_taskstate.database.tables.executions import execution_table, message_table
from qhana_taskstate.facts import ExecutionKey, KeptMessage, Publication, TaskRef
from qhana_taskstate.models.task import ProcessingTask
from qhana_taskstate.settings.values import Settings
from qhana_taskstate.states import TaskStatus
from qhana_taskstate.store.closing import losses
from qhana_taskstate.store.executions import begin, registration
from qhana_taskstate.store.task import jobs
from qhana_taskstate.store.task_end import from_outside
from qhana_taskstate.upkeep import lookout
from qhana_taskstate.upkeep.pruning import Pruner
from qhana_taskstate.upkeep.round import Upkeep
from qhana_taskstate.upkeep.settling import Settled
from tests.statements import statements
from tests.waiting import wait_until

pytestmark = pytest.mark.mariadb


class Somewhere:
    """Stands for a broker: tells which messages are missing."""

    tells = True

    def __init__(self) -> None:
        self.missing: set[str] = set()
        self.looks = 0
        self.asked: set[str] = set()
        self.fails = False

    def find_missing(self, sought: Collection[Sought], stop: Event | None = None) -> set[str]:
        self.looks += 1
        if self.fails:
            raise ConnectionError("the broker is away")
        self.asked |= {one.celery_id for one in sought}
        return {one.celery_id for one in sought} & self.missing


@pytest.fixture
def somewhere() -> Somewhere:
    return Somewhere()


@pytest.fixture
def sent() -> list[KeptMessage]:
    return []


@pytest.fixture
def make_upkeep(database: Database, somewhere: Somewhere, sent: list[KeptMessage]) -> Callable[..., Upkeep]:
    def make(**settings: Any) -> Upkeep:
        chosen = Settings(**{"missing_after_seconds": 0.2, "max_redeliveries": 2, **settings})

        def send(message: KeptMessage, ref: TaskRef, queue: str) -> None:
            sent.append(message)

        return Upkeep(
            database,
            chosen,
            redelivery_seconds=1,
            stored_success=lambda _: None,
            revoke=lambda _: None,
            finder=somewhere,
            send=send,
            pruner=Pruner(database, chosen),
        )

    return make


def queued(session: Session, database: Database, *names: str, age: timedelta = timedelta(minutes=5)) -> TaskRef:
    """Make a task with messages that were sent so long ago."""
    task = ProcessingTask("queued")
    task.save(commit=True)
    with database.transaction() as connection:
        ref = jobs.take_up(connection, task.id).ref
        registration.register(
            connection,
            ref.task_id,
            [Publication(ExecutionKey(name), "plugin.work", None, "celery", now() - age, None) for name in names],
            deadline_seconds=7 * 86400,
        )
    return ref


def state_of(database: Database, name: str) -> str:
    with database.reading() as connection:
        query = select(execution_table.c.state).where(execution_table.c.celery_id == name)
        return str(connection.execute(query).scalar_one())


def look(upkeep: Upkeep, somewhere: Somewhere, looks: int) -> Settled:
    """Do the chores until the broker was looked at so many times, and what that led to is settled."""
    total = Settled()
    until = somewhere.looks + looks

    def enough() -> bool:
        settled = upkeep.tick()
        assert settled is not None
        total.missing += settled.missing
        total.resent += settled.resent
        return somewhere.looks >= until and upkeep._lookout._look is None

    wait_until(f"{looks} looks", enough, timeout=20, interval=0.01)
    return total


def test_one_statement_when_there_is_nothing_to_do(
    current: Session, database: Database, make_upkeep: Callable[..., Upkeep]
) -> None:
    ProcessingTask("nobody gave it to us").save(commit=True)
    upkeep = make_upkeep()

    with statements(database) as seen:
        assert upkeep.tick() == Settled()
        assert upkeep.tick(force=True) == Settled()

    assert len(seen) == 2, seen


def test_two_statements_for_whoever_does_not_do_the_chores(
    current: Session, database: Database, make_upkeep: Callable[..., Upkeep]
) -> None:
    queued(current, database, "a")
    leader, other = make_upkeep(), make_upkeep()
    assert leader.tick() == Settled()

    with statements(database) as seen:
        assert other.tick() is None

    # The second one asks for what ran on its own machine, whose processes nobody else may see.
    assert len(seen) == 2, seen


def test_one_of_many_at_once_does_the_chores(
    current: Session, database: Database, make_upkeep: Callable[..., Upkeep], at_once: Callable[..., list[Any]]
) -> None:
    queued(current, database, "a")
    current.close()
    upkeeps = [make_upkeep() for _ in range(6)]

    results = at_once(*(upkeep.tick for upkeep in upkeeps))

    assert [result for result in results if result is not None] == [Settled()]


def test_message_that_is_missing_again_and_again_ends_its_task(
    current: Session, database: Database, make_upkeep: Callable[..., Upkeep], somewhere: Somewhere
) -> None:
    ref = queued(current, database, "gone", "there")
    somewhere.missing = {"gone"}
    upkeep = make_upkeep()

    assert look(upkeep, somewhere, lookout.LOOKS - 1) == Settled()
    assert state_of(database, "gone") == "QUEUED"
    assert look(upkeep, somewhere, 1).missing == 1

    assert (state_of(database, "gone"), state_of(database, "there")) == ("LOST", "QUEUED")
    task = ProcessingTask.get_by_id(ref.task_id)
    assert task is not None
    assert task.status == "ERROR"
    assert "'celery'" in task.task_log


def test_message_that_turns_up_between_two_looks_is_not_missing(
    current: Session, database: Database, make_upkeep: Callable[..., Upkeep], somewhere: Somewhere
) -> None:
    queued(current, database, "a")
    upkeep = make_upkeep()
    for _ in range(3):
        somewhere.missing = {"a"}
        look(upkeep, somewhere, lookout.LOOKS - 1)
        somewhere.missing = set()
        look(upkeep, somewhere, 1)

    assert state_of(database, "a") == "QUEUED"


def test_broker_that_cannot_be_asked_proves_nothing(
    current: Session, database: Database, make_upkeep: Callable[..., Upkeep], somewhere: Somewhere
) -> None:
    queued(current, database, "a")
    somewhere.missing = {"a"}
    upkeep = make_upkeep()
    for _ in range(3):
        look(upkeep, somewhere, lookout.LOOKS - 1)
        somewhere.fails = True
        look(upkeep, somewhere, 1)
        somewhere.fails = False

    assert state_of(database, "a") == "QUEUED"


def test_young_messages_and_those_of_unknown_queues_are_not_looked_for(
    current: Session, database: Database, make_upkeep: Callable[..., Upkeep], somewhere: Somewhere
) -> None:
    queued(current, database, "young", age=timedelta(0))
    queued(current, database, "old")
    queued(current, database, "unknown")
    with database.transaction() as connection:
        connection.execute(update(execution_table).where(execution_table.c.celery_id == "unknown").values(queue=None))
    look(make_upkeep(missing_after_seconds=60), somewhere, 1)

    assert somewhere.asked == {"old"}


def test_execution_that_began_after_all_is_left_alone(
    current: Session, database: Database, make_upkeep: Callable[..., Upkeep], somewhere: Somewhere
) -> None:
    ref = queued(current, database, "a")
    somewhere.missing = {"a"}
    upkeep = make_upkeep()
    look(upkeep, somewhere, lookout.LOOKS - 1)
    with database.transaction() as connection:
        begin.begin(
            connection,
            ref,
            ExecutionKey("a"),
            name="plugin.work",
            runner=begin.Runner(worker="w", host="h", pid=1, pid_started=1.0),
        )

    assert look(upkeep, somewhere, 1).missing == 0
    assert state_of(database, "a") == "RUNNING"


def test_more_messages_than_fit_into_one_look_are_looked_for_in_turn(
    current: Session,
    database: Database,
    make_upkeep: Callable[..., Upkeep],
    somewhere: Somewhere,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lookout, "_MOST", 4)
    names = [f"m{number}" for number in range(10)]
    for name in names:
        queued(current, database, name)
    somewhere.missing = {"m9"}
    upkeep = make_upkeep()

    look(upkeep, somewhere, 8)

    assert somewhere.asked == set(names)
    assert state_of(database, "m9") == "LOST"
    assert state_of(database, "m0") == "QUEUED"


def keep(database: Database, ref: TaskRef, name: str) -> KeptMessage:
    message = KeptMessage(
        exchange="",
        routing_key="celery",
        content_type="application/json",
        content_encoding="utf-8",
        body="[[], {}, {}]",
        headers="{}",
        properties="{}",
    )
    with database.transaction() as connection:
        registration.keep_message(connection, ref.task_id, ExecutionKey(name), message)
        registration.keep_message(connection, ref.task_id, ExecutionKey(name), message)
    return message


def test_kept_message_is_sent_again_a_few_times_at_most(
    current: Session,
    database: Database,
    make_upkeep: Callable[..., Upkeep],
    somewhere: Somewhere,
    sent: list[KeptMessage],
) -> None:
    ref = queued(current, database, "a")
    message = keep(database, ref, "a")
    somewhere.missing = {"a"}
    upkeep = make_upkeep()

    wait_until("it is sent again", lambda: bool(upkeep.tick() and sent), timeout=20, interval=0.01)
    assert sent == [message]
    assert state_of(database, "a") == "QUEUED"

    def given_up() -> bool:
        upkeep.tick()
        return state_of(database, "a") == "LOST"

    wait_until("it is given up", given_up, timeout=30, interval=0.01)
    assert sent == [message, message]
    with database.reading() as connection:
        assert connection.execute(select(message_table)).all() == []


def test_kept_message_of_an_ended_task_is_not_sent_again(
    current: Session,
    database: Database,
    make_upkeep: Callable[..., Upkeep],
    somewhere: Somewhere,
    sent: list[KeptMessage],
) -> None:
    ref = queued(current, database, "a")
    keep(database, ref, "a")
    with database.transaction() as connection:
        from_outside.end(connection, ref.task_id, TaskStatus.ERROR)
    somewhere.missing = {"a"}

    assert look(make_upkeep(), somewhere, lookout.LOOKS).missing == 1
    assert sent == []
    assert state_of(database, "a") == "LOST"


def handed_back(
    session: Session,
    database: Database,
    name: str,
    *,
    age: timedelta,
    overdue: timedelta = timedelta(seconds=1),
) -> TaskRef:
    """Make a task whose message was begun and went back to the broker, and whose deadline has passed."""
    ref = queued(session, database, name, age=age)
    key = ExecutionKey(name)
    with database.transaction() as connection:
        runner = begin.Runner(worker="w", host="h", pid=1, pid_started=1.0)
        begin.begin(connection, ref, key, name="plugin.work", runner=runner, acks_late=True)
        losses.hand_back(connection, ref, key, deadline=now() - overdue, lost=True)
    return ref


def deadline_of(database: Database, name: str) -> Any:
    with database.reading() as connection:
        query = select(execution_table.c.deadline_at).where(execution_table.c.celery_id == name)
        return connection.execute(query).scalar_one()


def test_message_that_went_back_and_waits_behind_a_backlog_is_not_given_up(
    current: Session, database: Database, make_upkeep: Callable[..., Upkeep], somewhere: Somewhere
) -> None:
    # Younger than what is looked for by itself: its deadline alone is the reason.
    handed_back(current, database, "a", age=timedelta(seconds=1))
    first = deadline_of(database, "a")
    upkeep = make_upkeep(missing_after_seconds=2)

    wait_until("its deadline was moved", lambda: upkeep.tick() is not None and deadline_of(database, "a") > first)
    assert somewhere.asked == {"a"}
    wait_until("it was moved again", lambda: upkeep.tick() is not None and somewhere.looks > 2, interval=0.05)

    assert state_of(database, "a") == "QUEUED"


def test_message_that_went_back_and_vanished_is_given_up(
    current: Session, database: Database, make_upkeep: Callable[..., Upkeep], somewhere: Somewhere
) -> None:
    ref = handed_back(current, database, "a", age=timedelta(minutes=5))
    somewhere.missing = {"a"}

    assert look(make_upkeep(), somewhere, lookout.LOOKS).missing == 1

    assert state_of(database, "a") == "LOST"
    task = ProcessingTask.get_by_id(ref.task_id)
    assert task is not None
    assert task.status == "ERROR"


def test_broker_that_cannot_be_asked_does_not_end_what_went_back(
    current: Session, database: Database, make_upkeep: Callable[..., Upkeep], somewhere: Somewhere
) -> None:
    handed_back(current, database, "a", age=timedelta(minutes=5))
    somewhere.fails = True

    look(make_upkeep(), somewhere, lookout.LOOKS)

    assert state_of(database, "a") == "QUEUED"


def test_many_that_went_back_keep_none_from_its_end_while_the_broker_cannot_be_asked(
    current: Session, database: Database, make_upkeep: Callable[..., Upkeep], somewhere: Somewhere
) -> None:
    queued(current, database, "never begun", age=timedelta(days=8))
    for number in range(101):
        handed_back(current, database, f"m{number}", age=timedelta(days=5), overdue=timedelta(days=4))
    somewhere.fails = True

    settled = make_upkeep().tick()

    assert settled is not None
    assert settled.overdue == 1
    assert state_of(database, "never begun") == "LOST"


@pytest.mark.parametrize("reason", ["a broker that tells nothing", "the deadline of its publication"])
def test_message_that_went_back_is_given_up_at_its_deadline_by(
    current: Session, database: Database, make_upkeep: Callable[..., Upkeep], somewhere: Somewhere, reason: str
) -> None:
    tells_nothing = reason == "a broker that tells nothing"
    somewhere.tells = not tells_nothing
    handed_back(current, database, "a", age=timedelta(minutes=5) if tells_nothing else timedelta(days=8))

    settled = make_upkeep().tick()

    assert settled is not None
    assert settled.overdue == 1
    assert state_of(database, "a") == "LOST"


def test_automatic_pruning_is_one_of_the_chores(
    current: Session, database: Database, make_upkeep: Callable[..., Upkeep]
) -> None:
    task = ProcessingTask("old")
    task.save(commit=True)
    with database.transaction() as connection:
        jobs.take_up(connection, task.id)
        from_outside.end(connection, task.id, TaskStatus.SUCCESS)
        row = ProcessingTask.__table__
        connection.execute(update(row).values(finished_at=now() - timedelta(days=2)))
    settled = make_upkeep(prune_after_seconds=86400).tick()

    assert settled is not None
    assert settled.pruned == 1


def test_process_settles_what_is_said_to_run_in_it_and_does_not(
    current: Session, database: Database, make_upkeep: Callable[..., Upkeep]
) -> None:
    upkeep = make_upkeep(heartbeat_seconds=1, lost_after_seconds=5)
    ref = queued(current, database, "left", "runs", "fresh", "elsewhere")
    with database.transaction() as connection:
        for name in ("left", "runs", "fresh", "elsewhere"):
            runner = begin.Runner(worker="w", host="here", pid=8 if name == "elsewhere" else 7, pid_started=1.0)
            begin.begin(connection, ref, ExecutionKey(name), name="plugin.work", runner=runner)
        silent = update(execution_table).where(execution_table.c.celery_id != "fresh")
        connection.execute(silent.values(heartbeat_at=now() - timedelta(seconds=6)))

    settled = upkeep.settler.settle_own("here", 7, 1.0, lambda _, key: key.celery_id == "runs")

    assert settled == 1
    states = {name: state_of(database, name) for name in ("left", "runs", "fresh", "elsewhere")}
    assert states == {"left": "LOST", "runs": "RUNNING", "fresh": "RUNNING", "elsewhere": "RUNNING"}
    task = ProcessingTask.get_by_id(ref.task_id)
    assert task is not None
    assert task.status == "ERROR"
    assert "its process lives, but does not run it any more" in task.task_log


def test_process_whose_start_cannot_be_told_settles_nothing(make_upkeep: Callable[..., Upkeep]) -> None:
    assert make_upkeep().settler.settle_own("here", 7, None, lambda *_: False) == 0
