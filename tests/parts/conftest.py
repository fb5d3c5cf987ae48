"""A database with our schema, its sessions, and a stand-in for the `TaskState` that would find them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.orm import Session

from qhana_taskstate import registry
from qhana_taskstate.database.engine import Database
from qhana_taskstate.database.sessions.scopes import Sessions
from qhana_taskstate.models.task import ProcessingTask
from qhana_taskstate.settings.values import Settings
from tests.parts.deployment import _deployment, deployment, kind

__all__ = ["_deployment", "deployment", "kind"]


@pytest.fixture
def bare_database(taskstate_database_url: str) -> Iterator[Database]:
    """A database without tables."""
    database = Database(taskstate_database_url)
    yield database
    database.dispose()


@pytest.fixture
def database(bare_database: Database, migrated_database_url: str) -> Database:
    """A database with our schema."""
    return bare_database


@pytest.fixture
def install_sessions() -> Iterator[Callable[..., Sessions]]:
    """Make sessions the current ones of the process, as a `TaskState` does."""
    before = list(registry._entries)

    def install(database: Database, host: Any = None, **settings: Any) -> Sessions:
        found = Sessions(database, Settings(**settings), host)
        state = SimpleNamespace(sessions=found, settings=found.settings)
        state.parts = state
        registry.register(found, state, lambda: found)
        return found

    yield install
    registry._entries[:] = before


@pytest.fixture
def current(database: Database, install_sessions: Callable[..., Sessions]) -> Iterator[Session]:
    """The current session, in a scope of its own."""
    with install_sessions(database).scope() as session:
        yield session


@pytest.fixture
def elsewhere(current: Session, database: Database) -> Iterator[Callable[[], Session]]:
    """Make sessions that stand for other processes."""
    made: list[Session] = []

    def make() -> Session:
        session = Session(database.engine, expire_on_commit=False)
        made.append(session)
        return session

    yield make
    for session in made:
        session.close()


@pytest.fixture
def task(current: Session) -> ProcessingTask:
    """A saved task."""
    task = ProcessingTask("clustering", parameters='{"k": 3}')
    task.save(commit=True)
    return task


def in_threads(*works: Callable[[], Any]) -> list[Any]:
    """Run functions at the same moment, each in a thread; returns their results or errors in order."""
    start = threading.Barrier(len(works))
    results: list[Any] = [None] * len(works)

    def run(index: int, work: Callable[[], Any]) -> None:
        start.wait()
        try:
            results[index] = work()
        except Exception as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.fixture
def at_once() -> Callable[..., list[Any]]:
    """See `in_threads`."""
    return in_threads
