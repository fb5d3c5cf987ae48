"""Each code block of the README does what the text around it says."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from datetime import datetime

import click
import pytest
from celery import Celery

from qhana_taskstate import TaskState
from qhana_taskstate.cli import group
from qhana_taskstate.settings.values import Settings, setting_names
from qhana_taskstate.testing import LocalProcess
from qhana_taskstate.testing.server import free_port
from qhana_taskstate.webhooks.http import message as http_message

from ..waiting import wait_until
from . import first_command
from .conftest import MakeProject
from .project import README_BROKER, Project
from .readme import ROOT, Block, blocks_of, command, normalised, read_blocks, read_text

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
    ("existing", "file worker.py"),
    ("canvas", "file plugin.py"),
    ("canvas", "python"),
    ("steps", "file plugin.py"),
    ("steps", "file web.py"),
    ("hosted", "file worker.py"),
    ("webhooks", "file receiver.py"),
    ("webhooks", "shell"),
    ("webhooks", "python"),
    ("webhooks", "http"),
    ("serve", "shell"),
    ("page", "file website.py"),
    ("pruning", "file worker.py"),
    ("canvas", "python"),
]


def test_every_block_is_run_by_a_test() -> None:
    assert [(block.project, block.role) for block in read_blocks()] == _BLOCKS


def test_files_stand_before_what_runs_them() -> None:
    begun: set[str] = set()
    for block in read_blocks():
        if block.role.startswith("file "):
            assert block.project not in begun, block
        elif block.role.startswith("shell") and block.project != "command":
            begun.add(block.project)


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


def test_tutorial_works_from_its_first_to_its_lastcommand(make_project: MakeProject) -> None:
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


def test_tasks_of_an_existing_project_are_tracked_unchanged(make_project: MakeProject) -> None:
    project = make_project("existing")
    code = "from celery import shared_task\n@shared_task\ndef report():\n    return 'all is well'\n"
    project.write("reports.py", code)
    project.run_celery("taskstate", "upgrade")
    project.start_worker()

    project.run_python(
        "from worker import taskstate; from reports import report\n"
        "taskstate.wait(taskstate.find(report.delay().id).id, timeout=30)"
    )

    shown = project.run_celery("taskstate", "show", "1")
    assert "reports.report  SUCCESS" in shown and "all is well" in shown


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


def test_subscriber_is_told_as_shown(make_project: MakeProject) -> None:
    project = make_project("webhooks")
    for name, source in (("plugin.py", "first"), ("worker.py", "tutorial")):
        (code,) = [block.code for block in blocks_of(source) if block.role == f"file {name}"]
        project.write(name, code)
    port = str(free_port())
    (script,) = [block.code for block in project.blocks if block.role == "shell"]
    (python,) = [block.code for block in project.blocks if block.role == "python"]
    steps = f"{script}wait_for_receiver\npython - <<'END'\n{python}END\ntouch told\nwait"
    waits = "wait_for_receiver() { until (exec 3<>/dev/tcp/127.0.0.1/5006) 2> /dev/null; do sleep 0.1; done; }\n"
    shell = LocalProcess(
        ["bash", "-euo", "pipefail", "-c", (waits + steps).replace("5006", port)],
        log_path=project.folder / "log",
        cwd=project.folder,
        env=project.environment,
    )
    receiver = project.folder / "receiver.log"

    shell.start()
    try:
        wait_until("the script has run", lambda: (project.folder / "told").exists() or not shell.running, timeout=90)
        assert shell.running, shell.logs()
        end = "http://localhost:5005/tasks/7/: status 1, SUCCESS"
        wait_until("the end was told", lambda: end in receiver.read_text().splitlines())
        # What an unsubscribed webhook was still owed is forgotten when its turn comes.
        told = f"http://127.0.0.1:{port}/told/"
        wait_until("only the subscriber is listed", lambda: listed(project) - {""} == {told}, timeout=30, interval=1)
    finally:
        shell.close()

    assert "401" not in receiver.read_text()
    assert ".> webhooks " in (project.folder / "webhooks.log").read_text()
    assert ".> webhooks " not in (project.folder / "worker.log").read_text()


def listed(project: Project) -> set[str]:
    """Return where the deliveries that `taskstate deliveries` lists go."""
    found = json.loads(project.run_celery("taskstate", "deliveries", "--json"))
    return {str(delivery["webhook_href"]) for delivery in found}


def test_call_looks_as_shown() -> None:
    (block,) = [block for block in blocks_of("webhooks") if block.role == "http"]
    head, _, body = block.code.partition("\n\n")
    request, *lines = head.splitlines()
    headers = dict(line.split(": ", 1) for line in lines)
    message = json.loads(body)
    data = message["data"]
    moment = datetime.fromisoformat(message["timestamp"])
    sent = http_message.message(
        task_id=data["task_id"],
        source=data["source"],
        event=data["event"],
        sequence=data["sequence"],
        status=data["status"],
        timestamp=moment,
    )

    assert request == f"POST {http_message.call_url('/told/', data['source'], data['event'])} HTTP/1.1"
    assert body.strip().encode() == sent
    secret = "whsec_" + base64.b64encode(bytes(32)).decode()
    assert headers == http_message.headers(headers["webhook-id"], moment, sent, [secret])


def test_waits_before_further_attempts_are_the_default_ones() -> None:
    told = re.search(r"It is tried again after (.*?), each", read_text(), re.DOTALL)
    assert told is not None
    units = {"s": 1, "min": 60, "h": 3600}
    waits = [float(number) * units[unit] for number, unit in re.findall(r"(\d+) (s|min|h)\b", told[1])]

    assert tuple(waits) == Settings().webhook_retry_schedule


def test_an_application_mounts_the_page_for_whom_it_lets_in(make_project: MakeProject) -> None:
    project = make_project("page")
    (worker,) = [block for block in blocks_of("first") if block.role == "file worker.py"]
    project.write("worker.py", worker.code.replace(', include=["plugin"]', ""))
    project.run_celery("taskstate", "upgrade")

    project.run_python(
        "from website import web\n"
        "client = web.test_client()\n"
        "assert client.get('/jobs/').status_code == 403\n"
        "with client.session_transaction() as session:\n"
        "    session['user'] = 'me'\n"
        "assert 'No task yet' in client.get('/jobs/').text\n"
    )
    (serve,) = blocks_of("serve")
    words = serve.code.split()
    assert words[:3] == ["celery", "-A", "worker"]
    assert "--port" in project.run_celery(*words[3:], "--help")


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
    assert command("test") in [line.strip() for line in (ROOT / ".ci" / "run").read_text().splitlines()]


def test_ci_runs_the_first_command_in_a_fresh_clone() -> None:
    assert f"-m {first_command.__name__}\n" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("name", ["demo", "test", "install", "enter"])
def test_command_is_one_line_of_valid_shell(name: str) -> None:
    assert "\n" not in command(name)
    subprocess.run(["/bin/sh", "-n", "-c", command(name)], check=True)


def test_settings_are_listed_with_their_defaults() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| .*? \|$", read_text(), re.MULTILINE)
    listed = dict(rows)
    defaults = Settings()

    assert set(setting_names()) <= listed.keys()
    for name in setting_names():
        value = getattr(defaults, name)
        shown = (
            "nine waits, 5 s to a day"
            if name == "webhook_retry_schedule"
            else f"`{value}`"
            if value or value == 0
            else "none"
        )
        assert listed[name] == shown, name


def test_commands_are_listed() -> None:
    section = read_text().partition("## Command line")[2].partition("\n## ")[0]
    listed = {command.split()[0] for cell in re.findall(r"^\| (`.*?) \|", section, re.M) for command in _code(cell)}

    assert listed == set(group.taskstate.list_commands(click.Context(group.taskstate)))


def _code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_calls_that_are_listed_exist() -> None:
    taskstate = TaskState(Celery("readme", set_as_current=False))
    section = read_text().partition("## Starting jobs")[2].partition("\n## ")[0]
    names = set(re.findall(r"`taskstate\.(\w+)\(", section))

    assert names == {
        "start",
        "start_on_commit",
        "restart",
        "current",
        "wait",
        "cancel",
        "finish",
        "find",
        "describe",
        "close",
        "detached",
        "bound",
    }
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
