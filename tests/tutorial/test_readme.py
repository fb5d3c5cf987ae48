"""Each code block of the README does what the text around it says."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

import click
import pytest
from celery import Celery

from qhana_taskstate import TaskState, cli
from qhana_taskstate.settings import Settings, setting_names
from qhana_taskstate.testing import LocalProcess
from qhana_taskstate.testing.server import free_port

from ..waiting import wait_until
from .conftest import MakeProject
from .project import README_BROKER
from .readme import ROOT, Block, blocks_of, normalised, read_blocks, read_text

#: The README's blocks and what of it they show; a new one needs a test below.
_BLOCKS = [
    ("first", "file plugin.py"),
    ("first", "file worker.py"),
    ("first", "output of show 1"),
    ("command", "demo"),
    ("command", "test"),
    ("command", "install"),
    ("command", "enter"),
    ("tutorial", "file plugin.py"),
    ("tutorial", "file worker.py"),
    ("tutorial", "shell"),
    ("tutorial", "shell"),
    ("tutorial", "shell that fails"),
    ("tutorial", "output of show 2"),
    ("tutorial", "python"),
    ("tutorial", "shell"),
    ("canvas", "file plugin.py"),
    ("canvas", "python"),
    ("steps", "file plugin.py"),
    ("steps", "file web.py"),
    ("hosted", "file worker.py"),
    ("pruning", "file worker.py"),
    ("canvas", "python"),
]


def test_every_block_is_run_by_a_test() -> None:
    assert [(block.project, block.role) for block in read_blocks()] == _BLOCKS


def test_first_screen_shows_decorator_worker_and_row() -> None:
    first_screen = "\n".join(read_text().splitlines()[:60])

    assert all(block.code in first_screen for block in blocks_of("first"))


def test_first_example_gives_the_row_that_is_shown(make_project: MakeProject) -> None:
    project = make_project("first")
    call = re.search(r"`task = (count_words\.start\(.*\))`", read_text())
    assert call is not None

    project.run_celery("taskstate", "upgrade")
    project.start_worker()
    project.run_python(
        f"from worker import taskstate; from plugin import count_words\ntaskstate.wait({call[1]}.id, timeout=30)"
    )

    assert normalised(project.run_celery("taskstate", "show", "1")) == normalised(_output(project.blocks))


def test_tutorial_works_from_its_first_to_its_last_command(make_project: MakeProject) -> None:
    project = make_project("tutorial")
    port = str(free_port())
    (worker,) = [block for block in project.blocks if block.role == "file worker.py"]
    project.write("worker.py", worker.code.replace(README_BROKER, f"redis://localhost:{port}/0"))
    script = "\n".join(_as_shell(block) for block in project.blocks).replace("--port 6379", f"--port {port}")
    shell = LocalProcess(
        ["bash", "-euo", "pipefail", "-c", script],
        log_path=project.folder / "log",
        cwd=project.folder,
        env=project.environment,
    )

    shell.start()
    try:
        code = shell.wait(90)
        # The last line asks Redis to end, and does not wait for it.
        wait_until("nothing of the tutorial runs any more", lambda: not shell.descendants())
    finally:
        shell.close()

    log = shell.logs()
    assert code == 0, log
    parts = log.split("==\n")
    assert re.search(r"task 1 .*SUCCESS", parts[1])
    assert "words.csv" in parts[1]
    assert re.search(r"task 2 .*ERROR", parts[2])
    assert normalised(parts[3]) == normalised(_output(project.blocks))
    lines = len((project.folder / "plugin.py").read_text().splitlines())
    assert parts[4].strip() == f"SUCCESS {float(lines)} ['words.csv']"


def _as_shell(block: Block) -> str:
    announced = "echo '=='\n"
    match block.role.split():
        case ["shell"]:
            return block.code + announced
        case ["shell", "that", "fails"]:
            return f"! {block.code}{announced}"
        case ["python"]:
            return f"python - <<'END'\n{block.code}END\n{announced}"
        case ["output", "of", *command]:
            return f"celery -A worker taskstate {' '.join(command)}\n{announced}"
        case _:
            return ""


def _output(blocks: list[Block]) -> str:
    (output,) = [block.code for block in blocks if block.role.startswith("output of ")]
    return output


def test_canvases_and_unit_tests_work_as_shown(make_project: MakeProject) -> None:
    project = make_project("canvas")
    project.environment["CELERY_RESULT_BACKEND"] = project.broker_url
    for block in blocks_of("tutorial"):
        if block.role == "file worker.py":
            project.write("worker.py", block.code.replace("include=", f'backend="{project.broker_url}", include='))

    project.run_celery("taskstate", "upgrade")
    project.start_worker()

    for block in project.blocks:
        if block.role == "python":
            project.run_python(block.code)


def test_step_is_answered_once(make_project: MakeProject) -> None:
    project = make_project("steps")
    for block in blocks_of("first"):
        if block.role == "file worker.py":
            project.write("worker.py", block.code)

    project.run_celery("taskstate", "upgrade")
    project.start_worker()

    project.run_python("""
from web import taskstate, web
client = web.test_client()
shown = client.post("/start/").headers["Location"]
taskstate.wait(1, timeout=30, or_step=True)
step, = client.get(shown).json["steps"]
assert step["stepId"] == "count" and not step["cleared"], step
assert client.post(step["href"], data={"count": "2"}).status_code == 303
assert client.post(step["href"], data={"count": "3"}).status_code == 409
taskstate.wait(1, timeout=30)
described = client.get(shown).json
assert described["status"] == "SUCCESS", described
assert described["log"].splitlines() == ["sorted; how many words do you want?", "apple, fig"], described
""")


def test_session_of_the_host_commits_its_rows_and_ours(make_project: MakeProject) -> None:
    project = make_project("hosted")
    for block in blocks_of("steps"):
        if block.role == "file plugin.py":
            project.write("plugin.py", block.code)

    project.run_celery("taskstate", "upgrade")
    project.start_worker()

    project.run_python("""
from worker import db, taskstate, web
from plugin import choose, prepare
from qhana_taskstate import ProcessingTask
class Note(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    text = db.Column(db.String(100))
with web.app_context():
    db.create_all()
    db.session.add(Note(text="ours"))
    task = taskstate.start(prepare.s(["b", "a"], "http://localhost/"))
    assert taskstate.session is db.session()
    taskstate.wait(task.id, timeout=30, or_step=True)
with web.app_context():
    assert Note.query.count() == 1
    taskstate.start(choose.s(1), task=task.id, answers="count")
    ended = taskstate.wait(task.id, timeout=30)
    assert (ended.status, ended.data["words"]) == ("SUCCESS", ["a", "b"])
""")


def test_old_tasks_are_removed_and_the_application_removes_their_files(make_project: MakeProject) -> None:
    project = make_project("pruning")
    for block in blocks_of("tutorial"):
        if block.role == "file plugin.py":
            project.write("plugin.py", block.code)
    project.run_celery("taskstate", "upgrade")
    project.start_worker()
    project.run_celery("taskstate", "start", "frequent_words", "--param", "path=plugin.py", "--wait")
    assert (project.folder / "words.csv").exists()

    told = project.run_celery("taskstate", "prune", "--older-than", "0s")

    assert told == "1 task removed; 1 output file is reported to the application\n"
    assert not (project.folder / "words.csv").exists()
    assert project.run_celery("taskstate", "list", "--json") == "[]\n"


def test_second_command_is_the_one_that_ci_runs() -> None:
    assert _command("test") in [line.strip() for line in (ROOT / ".ci" / "run").read_text().splitlines()]


@pytest.mark.parametrize("name", ["demo", "test", "install", "enter"])
def test_command_is_one_line_of_valid_shell(name: str) -> None:
    assert "\n" not in _command(name)
    subprocess.run(["/bin/sh", "-n", "-c", _command(name)], check=True)


def _command(name: str) -> str:
    (block,) = [block for block in blocks_of("command") if block.role == name]
    return block.code.strip()


@pytest.mark.timeout(300)
def test_first_command_runs_in_a_fresh_copy_and_again_in_ten_seconds(tmp_path: Path) -> None:
    if os.environ.get("CI") != "true":
        pytest.skip("installs the package into a new environment, which only CI does (CI=true)")
    copy, home = tmp_path / "copy", tmp_path / "home"
    home.mkdir()
    subprocess.run(["/usr/bin/env", "git", "clone", "-q", "--no-hardlinks", str(ROOT), str(copy)], check=True)
    environment = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    environment |= {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    environment |= {"HOME": str(home), "TMPDIR": str(tmp_path)}

    def seconds_of_the_demo() -> float:
        begun = time.monotonic()
        done = subprocess.run(
            ["/bin/sh", "-c", _command("demo")],
            cwd=copy,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return time.monotonic() - begun

    seconds_of_the_demo()
    # Other tests run at the same time and may take the processors from one run, not from all.
    later = (seconds_of_the_demo() for _ in range(3))
    assert any(seconds < 10 for seconds in later)


def test_settings_are_listed_with_their_defaults() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| .*? \|$", read_text(), re.MULTILINE)
    listed = dict(rows)
    defaults = Settings()

    assert set(setting_names()) <= listed.keys()
    for name in setting_names():
        value = getattr(defaults, name)
        shown = "hours to days" if name == "webhook_retry_schedule" else f"`{value}`" if value or value == 0 else "none"
        assert listed[name] == shown, name


def test_commands_are_listed() -> None:
    section = read_text().partition("## Command line")[2].partition("\n## ")[0]
    listed = {command.split()[0] for cell in re.findall(r"^\| (`.*?) \|", section, re.M) for command in _code(cell)}

    assert listed == set(cli.taskstate.list_commands(click.Context(cli.taskstate)))


def _code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_calls_that_are_listed_exist() -> None:
    taskstate = TaskState(Celery("readme", set_as_current=False))
    section = read_text().partition("## Starting jobs")[2].partition("\n## ")[0]
    names = set(re.findall(r"`taskstate\.(\w+)\(", section))

    assert names == {"start", "current", "wait", "cancel", "finish", "find", "describe", "detached", "bound"}
    assert all(callable(getattr(taskstate, name)) for name in names)


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
