"""A value that the database refuses costs that value, never the fact: what a real worker flushes and closes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.apps.jobs import report_as_given
from tests.parts.deployment import Deployment
from tests.refusals import accept, refuse

pytestmark = pytest.mark.versions

NOT_STORED = "could not be stored"


@pytest.fixture
def strict(deployment: Deployment) -> Iterator[Deployment]:
    """The deployment, on a database with constraints of its own."""
    refuse(deployment.taskstate.database.engine)
    yield deployment
    accept(deployment.taskstate.database.engine)


@pytest.mark.parametrize(
    ("line", "kept"), [("apple", NOT_STORED), ("\N{LATIN SMALL LETTER A WITH DIAERESIS}pple", NOT_STORED)]
)
def test_a_refused_flush_costs_what_is_refused(strict: Deployment, line: str, kept: str) -> None:
    task = strict.run(report_as_given.s("bananas", line, "", kept))

    assert (task.status, task.task_log.splitlines()[-1]) == ("SUCCESS", "done")
    assert "FactLost" not in task.task_log
    assert "apple" not in task.task_log, "it was refused together with the progress"


def test_a_refused_line_is_flushed_in_ascii(strict: Deployment) -> None:
    task = strict.run(report_as_given.s("rows", "\N{LATIN SMALL LETTER A WITH DIAERESIS}pple", "", "?pple"))

    assert (task.status, task.task_log, task.progress_value, task.progress_unit) == (
        "SUCCESS",
        "?pple\ndone",
        4,
        "rows",
    )


def test_a_refused_end_is_the_same_end(strict: Deployment) -> None:
    task = strict.run(report_as_given.s("bananas", "sorry", "sorry", ""))

    assert task.status == "ERROR"
    assert "ValueError" in task.task_log and NOT_STORED in task.task_log and "FactLost" not in task.task_log


@pytest.mark.parametrize("odd", ["a\0", "a\ud800"], ids=ascii)
def test_what_no_database_takes_is_cleaned_in_flush_and_end(deployment: Deployment, odd: str) -> None:
    tasks = [deployment.run(report_as_given.s(odd, f"line {odd}", f"error {odd}", flushed)) for flushed in ("line", "")]

    for task in tasks:
        assert task.status == "ERROR"
        assert (task.progress_value, task.progress_unit) == (1, task.task_log.splitlines()[0].removeprefix("line "))
        assert "\0" not in task.task_log and "FactLost" not in task.task_log and "error a" in task.task_log
