"""Starting work after the commit of an SQLAlchemy session, and never waiting for oneself."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from celery import signature
from sqlalchemy import Engine, create_engine, func, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from qhana_taskstate import (
    ArgumentsError,
    OwnTransactionError,
    ProcessingTask,
    TaskState,
    TaskStateError,
    plugin_task,
    taskstate,
)
from tests.apps.jobs import say
from tests.contract.conftest import MakeState


class HostBase(DeclarativeBase):
    """Base of the host's rows."""


class Order(HostBase):
    """A row of the host."""

    __tablename__ = "host_order"

    id: Mapped[int] = mapped_column(primary_key=True)


@plugin_task(name="hosts.start_after_me")
def start_after_me() -> None:
    """Change a row, start other work, and tell how many tasks there are then."""
    task = taskstate.current()
    task.parameters = "changed"
    taskstate.session.flush()
    started = say.start_on_commit()
    task.data = [taskstate.session.scalar(select(func.count()).select_from(ProcessingTask)), started]


@pytest.fixture
def engine(migrated_database_url: str) -> Iterator[Engine]:
    """The host's engine, on the database of the task states."""
    made = create_engine(migrated_database_url)
    HostBase.metadata.create_all(made)
    yield made
    made.dispose()


def _count(state: TaskState) -> int:
    with state.session_scope() as session:
        return session.scalar(select(func.count()).select_from(ProcessingTask)) or 0


def test_work_is_started_after_the_commit_of_a_given_session(queued: TaskState, engine: Engine) -> None:
    with Session(engine) as session:
        session.add(Order(id=1))
        session.flush()
        assert queued.start_on_commit(say.s(), session=session, task_name="after") is None
        assert _count(queued) == 0
        session.commit()
        assert _count(queued) == 1
        session.commit()
        session.execute(text("SELECT 1"))
        session.commit()
    assert _count(queued) == 1


def test_work_asked_for_before_the_first_write_waits_too(queued: TaskState, engine: Engine) -> None:
    with Session(engine) as session, session.begin():
        queued.start_on_commit(say.s(), session=session)
        session.add(Order(id=1))
        assert _count(queued) == 0
    assert _count(queued) == 1


def test_work_of_a_transaction_that_is_rolled_back_is_never_started(queued: TaskState, engine: Engine) -> None:
    with Session(engine) as session:
        session.add(Order(id=1))
        queued.start_on_commit(say.s(), session=session)
        session.rollback()
        session.add(Order(id=2))
        session.commit()
    assert _count(queued) == 0


@pytest.mark.parametrize("kept", [True, False])
def test_work_of_a_savepoint_shares_its_fate(queued: TaskState, engine: Engine, kept: bool) -> None:
    with Session(engine) as session, session.begin():
        session.execute(text("SELECT 1"))
        savepoint = session.begin_nested()
        inner = session.begin_nested()
        queued.start_on_commit(say.s(), session=session)
        inner.commit()
        savepoint.commit() if kept else savepoint.rollback()
        assert _count(queued) == 0
    assert _count(queued) == int(kept)


def test_work_is_started_at_once_where_no_transaction_is_open(queued: TaskState, engine: Engine) -> None:
    assert say.start_on_commit() is not None
    with Session(engine) as session:
        assert queued.start_on_commit(say.s(), session=session) is not None
    assert _count(queued) == 2


def test_current_session_with_a_write_is_waited_for(queued: TaskState) -> None:
    task = ProcessingTask("mine")
    task.save()
    assert queued.start_on_commit(say.s(), task=task) is None
    assert _count(queued) == 0
    queued.session.commit()
    found = ProcessingTask.get_by_id(task.id)
    assert found is not None
    assert queued.describe(found.id)["status"] == "PENDING"
    assert _count(queued) == 1


def test_session_of_the_host_is_waited_for(make_state: MakeState, engine: Engine) -> None:
    with Session(engine) as session:
        state = make_state(session=lambda: session)
        session.add(Order(id=1))
        assert say.start_on_commit("x") is None
        session.commit()
        assert session.scalar(select(func.count()).select_from(ProcessingTask)) == 1
        assert state.session is session


def test_arguments_are_checked_at_once(queued: TaskState, engine: Engine) -> None:
    with Session(engine) as session:
        session.add(Order(id=1))
        with pytest.raises(ArgumentsError):
            queued.start_on_commit(signature("tests.apps.jobs.say", ("a", "b")), session=session)
        session.commit()
    assert _count(queued) == 0


def test_work_asked_for_in_a_plugin_task_is_started_after_its_commit(eager: TaskState) -> None:
    task = eager.start(start_after_me.s())
    (count, other) = task.data
    assert count == 1
    assert ProcessingTask.get_by_id(task.id + 1) is not None
    assert other is None


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("call", ["start", "finish", "cancel", "save", "log", "subscribe", "unsubscribe"])
def test_write_that_would_wait_for_its_own_thread_is_refused_at_once(
    queued: TaskState, engine: Engine, call: str
) -> None:
    task = queued.start(say.s(), finishes=False)
    began = time.monotonic()
    with Session(engine) as session:
        session.add(Order(id=1))
        session.flush()
        with pytest.raises(OwnTransactionError, match="start_on_commit"):
            if call == "start":
                queued.start(say.s())
            elif call == "save":
                ProcessingTask("another").save(commit=True)
            elif call == "log":
                task.add_task_log_entry("a line", commit=True)
            elif call in ("subscribe", "unsubscribe"):
                getattr(queued, call)(
                    task, "https://me.example/hook", **({"task_href": "t"} if call == "subscribe" else {})
                )
            else:
                getattr(queued, call)(task.id)
        # A message that belongs to nobody yet is sent all the same; a worker takes it up.
        say.delay()
        assert time.monotonic() - began < 3
        session.commit()
    queued.session.rollback()
    assert _count(queued) == 1
    assert queued.cancel(task.id)


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("end", ["close", "rollback", "commit"])
def test_transaction_that_has_ended_keeps_nobody_waiting(queued: TaskState, engine: Engine, end: str) -> None:
    with Session(engine) as session:
        session.add(Order(id=1))
        session.flush()
        getattr(session, end)()
        ProcessingTask("another").save(commit=True)
        assert queued.start(say.s()).status == "PENDING"


@pytest.mark.databases("postgresql")
def test_open_write_on_a_server_keeps_nobody_waiting(queued: TaskState, engine: Engine) -> None:
    with Session(engine) as session:
        session.add(Order(id=1))
        session.flush()
        assert queued.start(say.s()).status == "PENDING"


def test_refusal_is_one_of_ours() -> None:
    assert issubclass(OwnTransactionError, TaskStateError)
