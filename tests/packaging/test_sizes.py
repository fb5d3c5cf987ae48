"""The sizes of the package's modules, functions and folders, and who writes: the check sees what breaks a rule."""

from __future__ import annotations

import pytest

from tests.packaging import sizes
from tests.packaging.sizes import Module


def places(*found: Module) -> list[str]:
    return [finding.place for finding in sizes.check(list(found))]


def test_package_keeps_its_sizes_and_its_writers() -> None:
    assert not [str(finding) for finding in sizes.check(sizes.modules()) if finding.exception is None]


def test_long_module_is_found_unless_it_is_a_migration() -> None:
    small = [Module(f"reading/{number}.py", "x = 1\n") for number in range(5)]
    long = "x = 1\n" * 301

    assert places(*small, Module("reading/rows.py", long)) == ["reading/rows.py"]
    assert places(*small, Module("database/migrations/versions/v1.py", long)) == []


def test_large_median_is_found() -> None:
    assert places(Module("models/task.py", "x = 1\n" * 151)) == [""]


def test_tenth_module_of_a_folder_is_found() -> None:
    nine = [Module(f"models/m{number}.py", "") for number in range(9)]

    assert places(*nine, Module("models/__init__.py", "")) == []
    assert places(*nine, Module("models/one_more.py", "")) == ["models"]


def test_long_function_is_found_and_its_docstring_does_not_count() -> None:
    docstring = '    """Do it.\n' + "\n    More.\n" * 30 + '    """\n'

    assert places(Module("a/b.py", "def f():\n" + docstring + "    x = 1\n" * 50)) == []
    assert places(Module("a/b.py", "def f():\n" + "    x = 1\n" * 51)) == ["a/b.py"]


@pytest.mark.parametrize(
    "source",
    [
        "from sqlalchemy import update\nupdate(task_table)",
        "from sqlalchemy import insert as add\nadd(task_table)",
        "from sqlalchemy.dialects.postgresql import insert\ninsert(task_table)",
        "from ..database.inserts import insert_absent\ninsert_absent(connection, task_table, [])",
        "import sqlalchemy as sa\nsa.delete(task_table)",
        "task_table.delete()",
        "ProcessingTask.__table__.update()",
        "connection.exec_driver_sql('DELETE FROM task')",
    ],
)
def test_statement_that_writes_is_found_outside_the_writers(source: str) -> None:
    assert places(Module("reading/tasks.py", source)) == ["reading/tasks.py"]
    assert places(Module("store/task/jobs.py", source)) == []


@pytest.mark.parametrize(
    "source", ["found.update(other)", "rows.insert(0, row)", "session.delete(task)", "text = 'Update the row'"]
)
def test_what_only_looks_like_a_statement_is_not_found(source: str) -> None:
    assert places(Module("reading/tasks.py", source)) == []
