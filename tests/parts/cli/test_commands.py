"""The command line: what it prints, where, and with which exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import pytest
from celery import Celery
from celery.bin.base import CLIContext
from click.testing import CliRunner, Result
from sqlalchemy import text

from qhana_taskstate import ProcessingTask, TaskFile, TaskState
from qhana_taskstate.cli.group import taskstate as command_group
from qhana_taskstate.cli.text import tables
from qhana_taskstate.clock import now
from qhana_taskstate.facts import ExecutionKey
from qhana_taskstate.reading import tasks as reader
from qhana_taskstate.states import ExecutionState
from qhana_taskstate.store.closing.close import Closing, close
from qhana_taskstate.store.executions.begin import Runner, begin
from qhana_taskstate.store.task import jobs as task_jobs
from qhana_taskstate.testing.waiting import wait_until
from qhana_taskstate.webhooks.views import DeliveryView
from tests import warm
from tests.apps import jobs
from tests.apps.factory import make_app
from tests.parts.deployment import Deployment

#: Nobody listens there, and the password must not be seen.
DEAD_BROKER = "redis://:br0kerpass@127.0.0.1:1/0"


class Run(Protocol):
    """Runs a command of the group in this process."""

    def __call__(self, *args: str, app: Celery | None = None) -> Result:
        """Run it."""


class Offline:
    """An app without a broker, on an empty database."""

    def __init__(self, app: Celery, taskstate: TaskState) -> None:
        self.app = app
        self.taskstate = taskstate

    def task(self, *, tracked: bool = True, finishes: bool | None = None, **facts: Any) -> ProcessingTask:
        """Save a task."""
        task = ProcessingTask(**{"task_name": "job", **facts})
        task.save(commit=True)
        if tracked:
            with self.taskstate.database.transaction() as connection:
                task_jobs.take_up(connection, task.id, finishes=finishes)
        return task

    def status(self, task: ProcessingTask) -> str:
        """Read the status anew."""
        found = ProcessingTask.get_by_id(task.id)
        assert found is not None
        return found.status


@pytest.fixture
def bare(taskstate_database_url: str) -> Iterator[Offline]:
    """Without tables."""
    app, taskstate = make_app(DEAD_BROKER, None, taskstate_database_url)
    app.set_current()
    yield Offline(app, taskstate)
    taskstate.close()
    app.close()


@pytest.fixture
def offline(bare: Offline, migrated_database_url: str) -> Offline:
    """With tables."""
    return bare


@pytest.fixture
def run(bare: Offline) -> Run:
    """Run a command of the group in this process, as `celery` would."""

    def call(*args: str, app: Celery | None = None) -> Result:
        context = CLIContext(app=app or bare.app, no_color=True, workdir=None)
        result = CliRunner().invoke(command_group, list(args), obj=context, prog_name="celery taskstate")
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "br0kerpass" not in result.output
        return result

    return call


def failed(result: Result, code: int = 1) -> str:
    """Check that a command failed with one clear line on standard error, and return that."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    [line] = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert result.stderr.splitlines()[-1] == line
    return line


class TestUpgrade:
    def test_makes_the_tables_and_may_be_repeated(self, bare: Offline, run: Run) -> None:
        for _ in range(2):
            result = run("upgrade")
            assert result.exit_code == 0
            assert "up to date" in result.stdout
        assert run("list").exit_code == 0

    @pytest.mark.parametrize("args", ["list", "show 1", "watch", "start tests.apps.jobs.say", "finish 1", "cancel 1"])
    def test_what_needs_tables_says_what_to_run(self, run: Run, args: str) -> None:
        assert "celery -A worker taskstate upgrade" in failed(run(*args.split()))


class TestList:
    def test_no_task_is_no_error(self, offline: Offline, run: Run) -> None:
        assert (run("list").stdout, run("list").exit_code) == ("", 0)
        assert json.loads(run("list", "--json").stdout) == []

    def test_newest_come_first_with_what_one_wants_to_know(self, offline: Offline, run: Run) -> None:
        offline.task(task_name="first")
        second = offline.task(task_name="second", progress_value=60)
        offline.taskstate.finish(second.id)

        head, one, two = run("list").stdout.splitlines()

        assert head.split() == ["ID", "STATUS", "ACTIVITY", "NAME", "STARTED", "TOOK", "PROGRESS", "NOTE"]
        assert one.split()[:4] == [str(second.id), "SUCCESS", "ended", "second"]
        assert "100 of 100 %" in one
        assert two.split()[1:4] == ["PENDING", "idle", "first"]

    def test_narrow_terminal_has_the_note_below_its_row_and_no_line_too_long(self, offline: Offline) -> None:
        failed_one = offline.task(task_name="a name that is far too long for a narrow terminal")
        offline.taskstate.finish(failed_one.id, status="ERROR", log="the cause " * 20)
        offline.task(task_name="short", progress_value=60)
        with offline.taskstate.database.reading() as connection:
            views = reader.list_tasks(connection, offline.taskstate.settings)

        lines = tables.task_table(views, now(), columns=80)

        assert max(map(len, lines)) <= 80
        assert lines[0].split()[-1] != "NOTE"
        assert any(line.startswith("      ") and "the cause" in line for line in lines)

    def test_narrow_terminal_has_the_answer_of_a_webhook_below_its_row(self) -> None:
        delivery = DeliveryView(
            id=1,
            task_id=2,
            subscription_id=3,
            webhook_href="http://host/" + "told/" * 20,
            event="status",
            state="waiting",
            sequence=4,
            attempts=5,
            due_at=now(),
            called_at=datetime(2026, 1, 2, tzinfo=UTC),
            answer="503",
            dead_at=None,
        )

        lines = tables.delivery_table([delivery], now(), columns=80)

        assert max(map(len, lines)) <= 80
        assert "WEBHOOK" not in lines[0]
        assert lines[2].split()[0] == "503" and "http://host/told/" in lines[2]
        assert len(tables.delivery_table([delivery], now())) == 2

    def test_filters(self, offline: Offline, run: Run) -> None:
        tasks = [offline.task(task_name=name) for name in ("alpha", "beta", "alphabet")]
        offline.taskstate.finish(tasks[0].id, status="ERROR")

        def ids(*args: str) -> list[int]:
            return [task["id"] for task in json.loads(run("list", "--json", *args).stdout)]

        assert ids("--name", "alpha") == [tasks[2].id, tasks[0].id]
        assert ids("--status", "error") == ids("--status", "FAILURE") == [tasks[0].id]
        assert ids("--limit", "1") == [tasks[2].id]
        assert ids("--before", str(tasks[2].id), "--limit", "1") == [tasks[1].id]
        assert ids("--before", "99999999999", "--limit", "1") == [tasks[2].id]

    def test_a_word_that_is_no_status_is_wrong_usage(self, offline: Offline, run: Run) -> None:
        assert "'DONE' is not one of" in failed(run("list", "--status", "DONE"), 2)

    def test_a_name_cannot_steer_the_terminal(self, offline: Offline, run: Run) -> None:
        offline.task(task_name="x\x1b[2J\ny")

        assert "\x1b" not in run("list").stdout
        assert len(run("list").stdout.splitlines()) == 2


class TestShow:
    def test_row_steps_log_and_what_it_waits_for(self, offline: Offline, run: Run) -> None:
        task = offline.task(task_log="one\ntwo\nthree", progress_value=3, progress_unit="rows")
        task.add_next_step(href="http://h", ui_href="http://u", step_id="k", commit=True)

        shown = run("show", str(task.id), "--lines", "2").stdout

        assert f"task {task.id}  job  PENDING" in shown
        assert "progress  3 of 100 rows" in shown
        assert "waits for input at step k: http://u" in shown
        assert "0  k  waits for input  http://u" in shown
        assert "log, the last 2 of 3 lines\n  two\n  three\n" in shown

    @pytest.mark.parametrize("running", [False, True], ids=["at rest", "while its execution runs"])
    @pytest.mark.parametrize("end", ["cancel", "finish"])
    def test_step_that_nobody_answered_before_the_end_is_not_called_answered(
        self, offline: Offline, run: Run, end: str, running: bool
    ) -> None:
        task = offline.task()
        key = ExecutionKey("c")
        with offline.taskstate.database.transaction() as connection:
            job = task_jobs.take_up(connection, task.id)
            runner = Runner(worker="w", host="h", pid=1, pid_started=None)
            begin(connection, job.ref, key, name="job", runner=runner)
        for step_id in ("first", "second"):
            task.clear_previous_step(commit=True)
            task.add_next_step(href="http://h", ui_href="http://u", step_id=step_id, commit=True)
        if not running:
            with offline.taskstate.database.transaction() as connection:
                close(connection, job.ref, Closing(key=key, name="job", state=ExecutionState.SUCCESS))
        getattr(offline.taskstate, end)(task.id)

        shown = run("show", str(task.id)).stdout

        assert "0  first  answered" in shown
        assert "1  second  not answered" in shown

    def test_local_file_shows_its_path_and_no_url(self, offline: Offline, run: Run, tmp_path: Path) -> None:
        task = offline.task()
        TaskFile(
            task=task,
            security_tag="t",
            storage_provider="local_filesystem",
            file_name="a.csv",
            file_storage_data=str(tmp_path / "a.csv"),
            file_type="custom",
            mimetype="text/csv",
        ).save(commit=True)
        offline.taskstate.finish(task.id)
        shown = run("show", str(task.id)).stdout
        assert f"a.csv  custom  text/csv  {tmp_path / 'a.csv'}" in shown
        assert "http" not in shown

    def test_the_whole_log_on_demand(self, offline: Offline, run: Run) -> None:
        task = offline.task(task_log="\n".join(map(str, range(50))))

        assert "  0\n" not in run("show", str(task.id)).stdout
        assert "log\n  0\n" in run("show", str(task.id), "--full").stdout
        assert "log" not in run("show", str(task.id), "--lines", "0").stdout.replace("log, the last 0", "")

    def test_json_holds_all_of_it_but_parameters_and_data(self, offline: Offline, run: Run) -> None:
        task = offline.task(parameters="s3cret", data={"token": "s3cret"}, task_log="one")

        result = run("show", str(task.id), "--json")
        shown = json.loads(result.stdout)

        assert (shown["id"], shown["task_name"], shown["status"], shown["log"]) == (task.id, "job", "PENDING", "one")
        assert shown["executions"] == shown["steps"] == shown["outputs"] == []
        assert "s3cret" not in result.output

    @pytest.mark.parametrize("task_id", ["1", "99999999999999999999"])
    def test_no_such_task_is_no(self, offline: Offline, run: Run, task_id: str) -> None:
        assert task_id in failed(run("show", task_id))

    def test_an_id_that_is_no_number_is_wrong_usage(self, offline: Offline, run: Run) -> None:
        assert "'x' is not a valid integer" in failed(run("show", "x"), 2)


class TestFinish:
    def test_ends_a_task_by_hand_without_a_broker(self, offline: Offline, run: Run) -> None:
        task = offline.task(finishes=False)

        result = run("finish", str(task.id), "--status", "error", "--log", "gave up", "--json")

        assert json.loads(result.stdout) == {"id": task.id, "finished": True, "status": "ERROR"}
        assert (result.exit_code, offline.status(task)) == (0, "ERROR")
        assert "gave up" in run("show", str(task.id)).stdout

    def test_a_task_that_has_ended_is_no(self, offline: Offline, run: Run) -> None:
        task = offline.task()
        assert run("finish", str(task.id)).exit_code == 0

        result = run("finish", str(task.id), "--status", "ERROR")

        assert (result.exit_code, result.stdout) == (1, "")
        assert f"task {task.id} had already ended as SUCCESS" in result.stderr
        assert json.loads(run("cancel", str(task.id), "--json").stdout) == {
            "id": task.id,
            "cancelled": False,
            "status": "SUCCESS",
        }

    @pytest.mark.parametrize("command", ["finish", "cancel", "watch", "wait"])
    @pytest.mark.parametrize("task_id", ["1", "99999999999"])
    def test_no_such_task_is_no(self, offline: Offline, run: Run, command: str, task_id: str) -> None:
        assert task_id in failed(run(command, task_id))


class TestCancel:
    def test_ends_the_task_though_the_broker_is_away(self, offline: Offline, run: Run) -> None:
        task = offline.task()

        result = run("cancel", str(task.id), "--reason", "no need")

        assert (result.exit_code, offline.status(task)) == (0, "ERROR")
        assert "cancelled: no need" in run("show", str(task.id)).stdout


class TestWatch:
    def test_nothing_to_watch_is_no_error(self, offline: Offline, run: Run) -> None:
        offline.task(tracked=False)

        result = run("watch")

        assert (result.exit_code, result.stdout) == (0, "")

    def test_without_an_id_it_watches_what_is_open(self, offline: Offline, run: Run) -> None:
        offline.task(tracked=False)
        ended, *open_ = (offline.task() for _ in range(3))
        offline.taskstate.finish(ended.id)

        lines = run("watch", "--timeout", "0", "--json").stdout.splitlines()

        assert [json.loads(line)["id"] for line in lines] == [task.id for task in open_]

    def test_tasks_that_have_ended_are_shown_once(self, offline: Offline, run: Run) -> None:
        good, bad = offline.task(), offline.task()
        offline.taskstate.finish(good.id)
        offline.taskstate.finish(bad.id, status="ERROR")

        assert run("watch", str(good.id)).exit_code == 0
        result = run("watch", str(bad.id), str(good.id))
        assert result.exit_code == 1
        assert [line.split()[3] for line in result.stdout.splitlines()] == ["SUCCESS", "ERROR"]
        assert f"task {bad.id} ended as ERROR" in result.stderr

    @pytest.mark.parametrize("command", ["watch", "wait"])
    def test_one_that_does_not_end_in_time_is_no(self, offline: Offline, run: Run, command: str) -> None:
        task = offline.task()

        result = run(command, str(task.id), "--timeout", "0.1")

        assert result.exit_code == 1
        assert f"Error: not ended after 0.1 s: task {task.id}" in result.stderr

    def test_wait_prints_the_status_alone(self, offline: Offline, run: Run) -> None:
        task = offline.task()
        offline.taskstate.finish(task.id)

        assert (run("wait", str(task.id)).stdout, run("wait", str(task.id)).exit_code) == ("SUCCESS\n", 0)
        assert json.loads(run("wait", str(task.id), "--json").stdout)["status"] == "SUCCESS"


class TestStart:
    def test_an_unknown_task_names_the_known_ones(self, offline: Offline, run: Run) -> None:
        line = failed(run("start", "nosuch"), 2)

        assert "'nosuch'" in line
        assert "tests.apps.jobs.say" in line
        assert "tests.apps.jobs.add" in line
        assert "celery.chord" not in line
        assert "qhana_taskstate.deliver" not in line

    @pytest.mark.databases("sqlite")
    def test_any_celery_task_of_the_app_can_be_started(self, offline: Offline, run: Run) -> None:
        offline.app.conf.task_always_eager = True

        result = run("start", "tests.apps.jobs.add", "-p", "x=1", "-p", "y=2", "--json")

        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout)["status"] == "SUCCESS"
        assert json.loads(result.stdout)["task_name"] == "tests.apps.jobs.add"

    def test_arguments_that_do_not_fit_a_plain_task_write_nothing(self, offline: Offline, run: Run) -> None:
        assert "'z'" in failed(run("start", "tests.apps.jobs.add", "-p", "z=1"), 2)
        assert run("list").stdout == ""

    @pytest.mark.parametrize("command", ["start tests.apps.jobs.say -p text=a", "restart {}", "finish {}", "doctor"])
    def test_session_of_the_host_is_not_asked_for(
        self, offline: Offline, run: Run, taskstate_database_url: str, command: str
    ) -> None:
        def outside() -> Any:
            raise RuntimeError("Working outside of application context")

        task = offline.task()
        app, hosted = make_app(DEAD_BROKER, None, taskstate_database_url, session=outside)
        try:
            result = run(*command.format(task.id).split(), app=app)
        finally:
            hosted.close()
            app.close()
            offline.app.set_current()

        assert "application context" not in result.output
        assert ("broker" in result.output) == command.startswith(("start", "doctor"))

    @pytest.mark.parametrize("param", ["text", "=1", "a b=1"])
    def test_a_param_without_key_or_value_is_wrong_usage(self, offline: Offline, run: Run, param: str) -> None:
        assert "no KEY=VALUE" in failed(run("start", "tests.apps.jobs.say", "-p", param), 2)

    def test_a_param_given_twice_is_wrong_usage(self, offline: Offline, run: Run) -> None:
        assert "twice" in failed(run("start", "tests.apps.jobs.say", "-p", "text=a", "-p", "text=b"), 2)

    def test_arguments_that_do_not_fit_write_nothing(self, offline: Offline, run: Run) -> None:
        assert "'txt'" in failed(run("start", "tests.apps.jobs.say", "--param", "txt=x"), 2)
        assert run("list").stdout == ""

    def test_answers_without_a_task_is_wrong_usage(self, offline: Offline, run: Run) -> None:
        assert "--task" in failed(run("start", "tests.apps.jobs.say", "--answers", "k"), 2)

    def test_a_broker_that_is_away_is_told_and_the_task_has_ended(self, offline: Offline, run: Run) -> None:
        assert "cannot be reached" in failed(run("start", "tests.apps.jobs.say"))
        assert [task["status"] for task in json.loads(run("list", "--json").stdout)] == ["ERROR"]

    def test_a_task_that_has_ended_takes_no_work(self, offline: Offline, run: Run) -> None:
        task = offline.task()
        offline.taskstate.finish(task.id)

        assert "already ended" in failed(run("start", "tests.apps.jobs.say", "--task", str(task.id)))
        assert "777" in failed(run("start", "tests.apps.jobs.say", "--task", "777"))

    @pytest.mark.parametrize(
        ("value", "passed"),
        [
            ("5", 5),
            ("1.5", 1.5),
            ("true", True),
            ("null", None),
            ('["a", 1]', ["a", 1]),
            ('{"a": {}}', {"a": {}}),
            ('"5"', "5"),
            ("text", "text"),
            ("a=b", "a=b"),
            ("", ""),
            ("NaN", "NaN"),
            ("[1, NaN]", "[1, NaN]"),
            ("01234", "01234"),
        ],
    )
    @pytest.mark.databases("sqlite")
    def test_a_value_that_is_json_is_passed_as_such_and_all_else_as_text(
        self, offline: Offline, run: Run, value: str, passed: Any
    ) -> None:
        offline.app.conf.task_always_eager = True

        result = run("start", "tests.apps.jobs.remember", "-p", "key=k", "-p", f"value={value}", "--json")

        assert result.exit_code == 0, result.stderr
        task = ProcessingTask.get_by_id(json.loads(result.stdout)["id"])
        assert task is not None
        assert task.data["k"] == passed
        assert isinstance(task.data["k"], type(passed))


@pytest.mark.databases("sqlite")
class TestSetUp:
    def test_an_app_without_a_taskstate_says_so(self, offline: Offline, run: Run) -> None:
        assert "'bare' has no TaskState" in failed(run("list", app=Celery("bare", set_as_current=False)), 2)

    def test_the_taskstate_of_the_app_on_the_command_line_counts(
        self, offline: Offline, run: Run, tmp_path: Path
    ) -> None:
        offline.task()
        other, other_state = make_app(DEAD_BROKER, None, f"sqlite:///{tmp_path / 'other.db'}")
        other_state.upgrade()

        assert run("list", app=other).stdout == ""
        assert len(run("list").stdout.splitlines()) == 2
        other_state.close()

    def test_a_setting_that_makes_no_sense_is_named(self, run: Run, tmp_path: Path) -> None:
        app, _ = make_app(DEAD_BROKER, None, f"sqlite:///{tmp_path / 'x.db'}", heartbeat_seconds=-1)

        assert "heartbeat_seconds" in failed(run("upgrade", app=app), 2)

    def test_a_database_that_is_away_is_named_without_its_password(self, run: Run) -> None:
        app, _ = make_app(DEAD_BROKER, None, "postgresql+psycopg://me:dbs3cret@127.0.0.1:1/db")

        for command in ("list", "upgrade"):
            line = failed(run(command, app=app))
            assert "127.0.0.1" in line
            assert "dbs3cret" not in line

    def test_a_driver_that_tells_the_password_is_not_repeated(
        self, offline: Offline, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: Any) -> None:
            raise OSError(f"cannot reach {DEAD_BROKER}")

        monkeypatch.setattr("qhana_taskstate.cli.context.schema.check", refuse)

        assert failed(run("list")).endswith("cannot reach redis://:***@127.0.0.1:1/0")

    def test_a_statement_that_the_database_refuses_shows_no_values(self, offline: Offline, run: Run) -> None:
        with offline.taskstate.database.transaction() as connection:
            connection.execute(text("DROP TABLE taskstate_job"))

        line = failed(run("list", "--name", "s3cret"))

        assert "taskstate_job" in line
        assert "s3cret" not in line
        assert "SELECT" not in line

    @pytest.mark.parametrize(
        "args", [[], ["list"], ["show"], ["start"], ["watch"], ["wait"], ["cancel"], ["finish"], ["upgrade"]]
    )
    def test_help_tells_the_exit_codes(self, run: Run, args: list[str]) -> None:
        result = run(*args, "--help")

        assert result.exit_code == 0
        assert "Exit codes: 0" in result.stdout


@contextmanager
def running(
    command: list[str], environment: dict[str, str], request: pytest.FixtureRequest
) -> Iterator[subprocess.Popen[str]]:
    """Run a command that does not outlive the test."""
    process = subprocess.Popen(
        command,
        cwd=request.config.rootpath,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


class TestWithAWorker:
    """As people run it: a `celery` process, a broker, a worker."""

    @pytest.fixture
    def environment(self, deployment: Deployment) -> dict[str, str]:
        """What the `celery` process gets."""
        return {
            **os.environ,
            "CELERY_BROKER_URL": deployment.broker_url,
            "TASKSTATE_DATABASE_URL": deployment.database_url,
        }

    @pytest.fixture
    def command(self) -> list[str]:
        """What stands before the name of a command."""
        return [sys.executable, "-m", "celery", "-A", "tests.apps.worker:app", "taskstate"]

    @pytest.fixture
    def celery(
        self, command: list[str], environment: dict[str, str], request: pytest.FixtureRequest
    ) -> Callable[..., subprocess.CompletedProcess[str]]:
        """Run a command of the group in a process of its own."""

        def call(*args: str) -> subprocess.CompletedProcess[str]:
            return warm.run(
                [*command, *args],
                cwd=request.config.rootpath,
                env=environment,
                capture_output=True,
                text=True,
                timeout=40,
                check=False,
            )

        return call

    def test_a_task_is_started_watched_and_shown(self, celery: Callable[..., Any]) -> None:
        started = celery(
            "start", "tests.apps.jobs.count_rows", "-p", "rows=4", "-p", "pause=0.1", "--task-name", "rows", "--wait"
        )

        assert started.returncode == 0, started.stderr
        assert started.stderr == ""
        first, *_, last = started.stdout.splitlines()
        assert first.endswith("was started")
        assert "SUCCESS  4 of 4 rows  took" in last
        shown = celery("show", first.split()[1]).stdout
        assert "└─ tests.apps.jobs.count_rows  SUCCESS  on " in shown
        assert "log\n  sum 6\n" in shown

    def test_a_task_that_fails_tells_so_by_its_exit_code(self, celery: Callable[..., Any]) -> None:
        started = celery("start", "tests.apps.jobs.fail", "-p", "message=no luck", "--wait", "--json")

        task = json.loads(started.stdout)
        assert (started.returncode, task["status"]) == (1, "ERROR")
        shown = celery("show", str(task["id"]), "--traceback").stdout
        assert "ValueError: no luck" in shown
        assert "raise ValueError(message)" in shown

    def test_attempts_are_shown_with_reason_and_time_of_the_next(self, celery: Callable[..., Any]) -> None:
        started = celery("start", "tests.apps.jobs.flaky", "-p", "failures=2", "--wait", "--json")

        shown = celery("show", str(json.loads(started.stdout)["id"])).stdout

        assert "tests.apps.jobs.flaky  SUCCESS  3 executions" in shown
        assert "attempt 1 of 4 failed: ConnectionError: attempt 0, next at 20" in shown
        assert "attempt 2 of 4 failed: ConnectionError: attempt 1, next at 20" in shown
        assert "attempt 3 of 4 SUCCESS" in shown

    def test_what_a_task_published_stands_below_it(self, celery: Callable[..., Any]) -> None:
        started = celery("start", "tests.apps.jobs.spawn", "-p", "depth=2", "--wait", "--json")

        detail = json.loads(celery("show", str(json.loads(started.stdout)["id"]), "--json").stdout)

        names = {execution["celery_id"]: execution["name"] for execution in detail["executions"]}
        parents = [(e["name"].rpartition(".")[2], names.get(e["parent_id"])) for e in detail["executions"]]
        assert sorted(parents, key=str) == [
            ("add", "tests.apps.jobs.spawn"),
            ("add", "tests.apps.jobs.spawn"),
            ("spawn", "tests.apps.jobs.spawn"),
            ("spawn", "tests.apps.jobs.spawn"),
            ("spawn", None),
        ]

    def test_a_step_is_answered(self, celery: Callable[..., Any], deployment: Deployment) -> None:
        task = deployment.taskstate.start(jobs.ask.s("k"))
        deployment.taskstate.wait(task.id, timeout=20, or_step=True)

        answered = celery("start", "tests.apps.jobs.say", "--task", str(task.id), "--answers", "k", "--wait")

        assert answered.returncode == 0, answered.stderr
        again = celery("start", "tests.apps.jobs.say", "--task", str(task.id), "--answers", "k")
        assert (again.returncode, "already ended" in again.stderr) == (1, True)

    def test_watch_follows_tasks_until_they_have_ended(
        self,
        command: list[str],
        environment: dict[str, str],
        deployment: Deployment,
        tmp_path: Path,
        request: pytest.FixtureRequest,
    ) -> None:
        gate = tmp_path / "gate"
        tasks = [deployment.taskstate.start(jobs.wait_for_file.s(str(gate))) for _ in range(2)]
        watch = [*command, "watch", *(str(task.id) for task in tasks)]
        with running(watch, environment, request) as process:
            assert process.stdout is not None
            begun = [process.stdout.readline() for _ in tasks]
            gate.touch()
            ended, _ = process.communicate(timeout=30)

        assert process.returncode == 0
        assert [line.split()[1] for line in begun] == [str(task.id) for task in tasks]
        assert all("PENDING" in line for line in begun)
        assert ended.count("SUCCESS") == 2

    def test_interrupting_watch_leaves_the_task_alone(
        self,
        command: list[str],
        environment: dict[str, str],
        deployment: Deployment,
        tmp_path: Path,
        request: pytest.FixtureRequest,
    ) -> None:
        task = deployment.taskstate.start(jobs.wait_for_file.s(str(tmp_path / "gate")))
        with running([*command, "watch", str(task.id)], environment, request) as process:
            assert process.stdout is not None
            assert "PENDING" in process.stdout.readline()
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=20)

        assert process.returncode == 130
        assert "the tasks go on" in stderr
        (tmp_path / "gate").touch()
        assert deployment.taskstate.wait(task.id, timeout=20).is_ok

    def test_cancel_terminates_what_runs(
        self, celery: Callable[..., Any], deployment: Deployment, tmp_path: Path
    ) -> None:
        task = deployment.taskstate.start(jobs.wait_for_file.s(str(tmp_path / "never"), seconds=60))

        def states() -> list[str]:
            detail = json.loads(celery("show", str(task.id), "--json").stdout)
            return [execution["state"] for execution in detail["executions"]]

        wait_until("it runs", lambda: states() == ["RUNNING"], timeout=20)

        cancelled = celery("cancel", str(task.id), "--terminate", "--reason", "too slow")

        assert cancelled.returncode == 0, cancelled.stderr
        assert "cancelled: too slow" in celery("show", str(task.id)).stdout
        wait_until("it was terminated", lambda: states() == ["REVOKED"], timeout=20)
