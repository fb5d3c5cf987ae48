"""Projects of the README, each with a Redis database of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .project import Project

MakeProject = Callable[[str], Project]


@pytest.fixture
def make_project(tmp_path: Path, new_redis_url: Callable[[], str]) -> Iterator[MakeProject]:
    """Make a project of the README in a folder of its own: `make_project("first")`."""
    made: list[Project] = []

    def make(name: str) -> Project:
        folder = tmp_path / name
        folder.mkdir()
        made.append(Project(name, folder, new_redis_url()))
        return made[-1]

    yield make
    for project in made:
        project.close()
