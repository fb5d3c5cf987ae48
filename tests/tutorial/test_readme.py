"""The README, read from its top: its blocks in the order in which a person runs them."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from . import first_command
from .as_reader import run_as_reader
from .conftest import MakeProject
from .project import Project
from .readme import README, ROOT, Block, command, file_of, normalised, read_blocks, read_text

#: What a newcomer reads in five minutes.
_MOST_WORDS = 1300


def _blocks(project: str) -> list[Block]:
    return [block for block in read_blocks(README) if block.project == project]


def test_newcomer_reads_it_in_five_minutes() -> None:
    assert len(read_text().split()) <= _MOST_WORDS


def test_first_screen_shows_decorator_worker_and_row() -> None:
    first_screen = "\n".join(read_text().splitlines()[:60])

    assert all(block.code in first_screen for block in _blocks("first") if block.role != "shell")


def test_blocks_work_in_the_order_in_which_a_person_runs_them(make_project: MakeProject) -> None:
    project = make_project("first")

    parts = run_as_reader(project, README, "first")

    assert re.search(r"task 1 .*SUCCESS", parts[0])
    (output,) = [block.code for block in _blocks("first") if block.role.startswith("output of ")]
    assert normalised(output) in normalised(parts[0])


def test_call_from_python_has_the_arguments_of_the_row_that_is_shown() -> None:
    call = re.search(r"`task = count_words\.start\((.*)\)`", read_text())
    assert call is not None

    assert f"--param 'lines={call[1]}'" in read_text()


def test_tasks_of_an_existing_project_are_tracked_unchanged(make_project: MakeProject) -> None:
    project = make_project("existing")
    code = "from celery import shared_task\n@shared_task\ndef report():\n    return 'all is well'\n"
    project.write("reports.py", code)
    project.make_tables()
    project.start_worker()

    project.run_python(
        "from worker import taskstate; from reports import report\n"
        "taskstate.wait(taskstate.find(report.delay().id).id, timeout=30)\n"
        "taskstate.wait(taskstate.start(report.s()).id, timeout=30)"
    )

    shown = project.run_celery("taskstate", "show", "1")
    assert "reports.report  SUCCESS" in shown and "all is well" in shown
    assert len(file_of("existing", "worker.py").splitlines()) == 5


def test_tests_of_a_plugin_pass_as_shown(make_project: MakeProject) -> None:
    project = make_project("testing")
    for name in ("killed", "nodes"):
        add_files(project, name)

    told = project.run(
        *(sys.executable, "-m", "pytest", "-q", "--rootdir", ".", "-p", "no:cacheprovider"),
        "--taskstate-databases=sqlite",
    )

    assert "4 passed" in told
    code = file_of("killed", "test_killed.py").splitlines()
    assert len([line for line in code if line.strip()]) <= 10


def add_files(project: Project, name: str) -> None:
    """Add the files of another project."""
    for block in read_blocks():
        if block.project == name and block.role.startswith("file "):
            project.write(block.role.removeprefix("file "), block.code)


def test_second_command_is_the_one_that_ci_runs() -> None:
    assert command("test") in [line.strip() for line in (ROOT / ".ci" / "run").read_text().splitlines()]


def test_ci_runs_the_first_command_in_a_fresh_clone() -> None:
    assert f"-m {first_command.__name__}\n" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("name", ["demo", "test", "install", "enter"])
def test_command_is_one_line_of_valid_shell(name: str) -> None:
    assert "\n" not in command(name)
    subprocess.run(["/bin/sh", "-n", "-c", command(name)], check=True)


def test_links_lead_to_files_and_headings() -> None:
    headings = {
        re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", read_text(), re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)]+)\)", read_text()):
        if target.startswith("#"):
            assert target[1:] in headings
        else:
            assert (ROOT / target).exists(), target
