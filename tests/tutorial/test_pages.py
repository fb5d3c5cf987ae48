"""Each code block of the documentation does what the text around it says."""

from __future__ import annotations

import base64
import json
import re
import shlex
from datetime import datetime

from benchmarks.__main__ import parse as parse_benchmarks
from benchmarks.chaos.__main__ import parse
from qhana_taskstate.settings.values import Settings
from qhana_taskstate.testing import LocalProcess
from qhana_taskstate.testing.server import free_port
from qhana_taskstate.webhooks.http import message as http_message

from ..waiting import wait_until
from .as_reader import run_as_reader
from .conftest import MakeProject
from .project import Project
from .readme import blocks_of, file_of, normalised, read_blocks, read_text

#: The projects that the blocks belong to. A new one needs a test: here, in test_readme.py or in test_hosts.py.
_PROJECTS = {
    "benchmarks",
    "canvas",
    "chaos",
    "command",
    "django",
    "existing",
    "fastapi",
    "first",
    "hosted",
    "killed",
    "logs",
    "nodes",
    "page",
    "pruning",
    "runner",
    "script",
    "serve",
    "steps",
    "testing",
    "tutorial",
    "webhooks",
}


def test_every_block_belongs_to_a_project_that_a_test_runs() -> None:
    unknown = {(block.page, block.project, block.role) for block in read_blocks() if block.project not in _PROJECTS}
    assert unknown == set()
    assert {block.project for block in read_blocks()} == _PROJECTS


def test_files_stand_before_what_runs_them() -> None:
    begun: set[tuple[str, str]] = set()
    for block in read_blocks():
        key = (block.page, block.project)
        if block.role.startswith("file "):
            assert key not in begun, block
        elif block.role.startswith("shell") and block.project != "command":
            begun.add(key)


def test_tutorial_works_from_its_first_to_its_last_command(make_project: MakeProject) -> None:
    project = make_project("tutorial")

    parts = run_as_reader(project, "docs/tutorial.md", "tutorial")

    assert re.search(r"task 1 .*SUCCESS", parts[1])
    assert "words.csv" in parts[1]
    assert re.search(r"task 2 .*ERROR", parts[2])
    (output,) = [block.code for block in project.blocks if block.role.startswith("output of ")]
    assert normalised(parts[3]) == normalised(output)
    lines = len((project.folder / "my_plugin" / "plugin.py").read_text().splitlines())
    assert parts[4].strip() == f"SUCCESS {float(lines)} ['words.csv']"


def test_canvases_and_unit_tests_work_as_shown(make_project: MakeProject) -> None:
    project = make_project("canvas")
    project.environment["CELERY_RESULT_BACKEND"] = project.broker_url
    worker = file_of("tutorial", "worker.py")
    project.write("worker.py", worker.replace("include=", f'backend="{project.broker_url}", include='))

    project.make_tables()
    project.start_worker()

    for block in project.blocks:
        if block.role == "python":
            project.run_python(block.code)


def test_each_line_of_a_worker_names_the_task_as_shown(make_project: MakeProject) -> None:
    project = make_project("logs")
    project.write(
        "plugin.py",
        """
import logging
from celery import shared_task
from celery.utils.log import get_task_logger
from qhana_taskstate import plugin_task

@plugin_task(name="talk", bind=True, max_retries=1)
def talk(self):
    logging.getLogger("of.plugin").warning("by logging")
    get_task_logger("of.celery").warning("by Celery")
    if not self.request.retries:
        raise self.retry(countdown=0)

@shared_task(name="untracked")
def untracked():
    logging.getLogger("of.plugin").warning("by nobody")
""",
    )
    project.make_tables()
    project.start_worker()

    project.run_python("""
from worker import app, taskstate
app.send_task("untracked")
task = taskstate.start(app.signature("talk", task_id="chosen"))
taskstate.wait(task.id, timeout=30)
""")
    log = (project.folder / "worker.log").read_text()

    for execution in ("chosen", "chosen/2"):
        for logger, text in (("of.plugin", "by logging"), ("of.celery", "by Celery")):
            assert f"WARNING task=1 execution={execution} {logger}: {text}" in log
    assert "WARNING task=- execution=- of.plugin: by nobody" in log


def test_step_is_answered_once(make_project: MakeProject) -> None:
    project = make_project("steps")
    project.write("worker.py", file_of("first", "worker.py"))

    project.make_tables()
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
    project.write("plugin.py", file_of("steps", "plugin.py"))

    project.make_tables("application.db")
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


def test_runner_keeps_its_task_states_here_by_one_call(make_project: MakeProject) -> None:
    project = make_project("runner")
    (upgrade,) = [block.code for block in project.blocks if block.role == "shell"]

    project.run(*upgrade.split())
    project.start_worker()

    project.run_python("""
from worker import app
from host import CELERY
from qhana_taskstate import taskstate
from plugin import start
with CELERY.flask_app.app_context():
    ended = taskstate.wait(start("world"), timeout=30)
    assert (ended.status, ended.task_log) == ("SUCCESS", "hello world"), ended.task_log
""")


def test_subscriber_is_told_as_shown(make_project: MakeProject) -> None:
    project = make_project("webhooks")
    for name, source in (("plugin.py", "first"), ("worker.py", "tutorial")):
        project.write(name, file_of(source, name))
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
    told = re.search(r"It is tried again after (.*?), each", read_text("docs/how-to/webhooks.md"), re.DOTALL)
    assert told is not None
    units = {"s": 1, "min": 60, "h": 3600}
    waits = [float(number) * units[unit] for number, unit in re.findall(r"(\d+) (s|min|h)\b", told[1])]

    assert tuple(waits) == Settings().webhook_retry_schedule


def test_an_application_mounts_the_page_for_whom_it_lets_in(make_project: MakeProject) -> None:
    project = make_project("page")
    project.write("worker.py", file_of("first", "worker.py").replace(', include=["plugin"]', ""))
    project.make_tables()

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
    project.write("plugin.py", file_of("tutorial", "plugin.py"))
    project.make_tables()
    project.start_worker()
    project.run_celery("taskstate", "start", "frequent_words", "--param", "path=plugin.py", "--wait")
    assert (project.folder / "words.csv").exists()

    told = project.run_celery("taskstate", "prune", "--older-than", "0s")

    assert told == "1 task removed; 1 output file is reported to the application\n"
    assert not (project.folder / "words.csv").exists()
    assert project.run_celery("taskstate", "list", "--json") == "[]\n"


def test_chaos_run_takes_what_is_shown() -> None:
    (block,) = blocks_of("chaos")
    words = block.code.split()
    assert words[:3] == ["python", "-m", "benchmarks.chaos"]
    assert parse(words[3:]).minutes == 20


def test_benchmarks_take_what_is_shown() -> None:
    (block,) = blocks_of("benchmarks")
    install, *commands = [shlex.split(line, comments=True) for line in block.code.splitlines()]
    assert install[-1] == ".[benchmarks]"
    for words in commands:
        assert words[:3] == ["python", "-m", "benchmarks"]
        parse_benchmarks(words[3:])
