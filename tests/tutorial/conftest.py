"""Projects of the documentation, each with a Redis database of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qhana_taskstate.database import schema
from qhana_taskstate.database.engine import Database

from .project import Project

MakeProject = Callable[[str], Project]


@pytest.fixture(scope="session")
def _tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the tables."""
    path = tmp_path_factory.mktemp("tables") / "taskstate.db"
    database = Database(f"sqlite:///{path}")
    schema.upgrade(database)
    # So that the file holds all of it.
    with database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    database.dispose()
    return path


@pytest.fixture
def make_project(tmp_path: Path, new_redis_url: Callable[[], str], _tables: Path) -> Iterator[MakeProject]:
    """Make a project of the documentation in a folder of its own: `make_project("first")`."""
    made: list[Project] = []

    def make(name: str) -> Project:
        folder = tmp_path / name
        folder.mkdir()
        made.append(Project(name, folder, new_redis_url(), _tables))
        return made[-1]

    yield make
    for project in made:
        project.close()
