"""`TaskState.start`: what it takes, what it refuses, and that a refusal leaves nothing half done."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from celery import chain, chord, group
from sqlalchemy import delete

from qhana_taskstate import (
    ArgumentsError,
    BrokerUnavailableError,
    DatabaseUnavailableError,
    DuplicateExecutionError,
    ProcessingTask,
    SchemaError,
    SettingsError,
    StepNotOpenError,
    TaskFinishedError,
    TaskNotFoundError,
    TaskState,
    TaskStateError,
    TextTooLongError,
    taskstate,
)
from tests.apps.jobs import ask, fail, nothing, remember, say, with_id
from tests.contract.conftest import MakeState, count_rows

pytestmark = pytest.mark.versions


def _short(value: object) -> str:
    return repr(value)[:9]


DEAD_BROKER = "redis://:hunter2@127.0.0.1:1/0"


@pytest.fixture
def mute_broker() -> Iterator[str]:
    """URL of a server that takes connections and never answers."""
    with closing(socket.socket()) as server:
        server.bind(("127.0.0.1", 0))
        server.listen(5)
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"


def at_step(step: str = "k") -> ProcessingTask:
    task = ProcessingTask("with a step")
    task.save(commit=True)
    task.add_next_step("http://h", "http://u", step, commit=True)
    return task


def read(task_id: int) -> ProcessingTask:
    task = ProcessingTask.get_by_id(task_id)
    assert task is not None
    return task


def test_every_argument_is_kept_in_one_task(queued: TaskState) -> None:
    task = queued.start(
        say.s("x"),
        task_name="report",
        parameters={"k": [1, None]},
        finishes=False,
        webhook_href="https://me.example/hook",
        event="status",
        task_href="https://plugin.example/tasks/1/",
        task_id="chosen",
        countdown=60,
    )

    (subscription,) = task.subscriptions
    assert (task.status, task.task_name, task.parameters) == ("PENDING", "report", '{"k": [1, null]}')
    assert subscription.webhook_href == "https://me.example/hook"
    found = queued.find("chosen")
    assert found is not None
    assert found.id == task.id


def test_arguments_are_not_stored_unless_asked_for(queued: TaskState) -> None:
    assert queued.start(say.s("my password")).parameters == ""


def test_same_signature_can_be_started_again(queued: TaskState) -> None:
    work = chain(say.si("a"), say.si("b"))

    assert len({queued.start(work).id for _ in range(3)}) == 3


def wrong() -> Any:
    return say.si("a", "b", no=1)  # type: ignore[call-arg]


SHAPES: dict[str, Any] = {
    "single": lambda bad: bad,
    "group": lambda bad: group(say.si(), bad),
    "chord header": lambda bad: chord([say.si(), bad], say.si()),
    "chord body": lambda bad: chord([say.si()], bad),
    "group in a group": lambda bad: group(group(say.si(), bad), say.si()),
    "chord in a chord": lambda bad: chord([chord([bad], say.si())], say.si()),
    "callback": lambda bad: say.si().set(link=[bad]),  # type: ignore[arg-type]
    "lone callback": lambda bad: say.si().set(link=bad),
    "first of a chain": lambda bad: chain(bad, say.si()),
    "last of a chain": lambda bad: chain(say.si(), bad),
    "chain in a group": lambda bad: group(say.si(), chain(say.si(), bad)),
    "group in a chain": lambda bad: chain(say.si(), group(say.si(), bad), say.si()),
}
IN_SHAPES = list(SHAPES)


@pytest.mark.parametrize("shape", IN_SHAPES)
def test_arguments_that_do_not_fit_are_refused_in_any_position(queued: TaskState, shape: str) -> None:
    work = SHAPES[shape](wrong())
    before = count_rows(queued)

    with pytest.raises(ArgumentsError, match="say"):
        queued.start(work)

    assert count_rows(queued) == before
    assert not queued.session.in_transaction()


def test_result_that_the_next_of_a_chain_does_not_take_is_refused(queued: TaskState) -> None:
    before = count_rows(queued)

    with pytest.raises(ArgumentsError, match="nothing"):
        queued.start(chain(say.s(), nothing.s()))

    assert count_rows(queued) == before


def test_result_that_the_body_of_a_chord_does_not_take_is_refused(queued: TaskState) -> None:
    with pytest.raises(ArgumentsError, match="nothing"):
        queued.start(chord([say.s()], nothing.s()))


def test_chain_has_the_name_of_its_first_task_and_needs_no_hold(queued: TaskState) -> None:
    assert queued.start(chain(say.si(), nothing.si())).task_name == "tests.apps.jobs.say"


@pytest.mark.parametrize("how", ["start", "X.start", "delay"])
@pytest.mark.databases("sqlite")
def test_work_is_started_from_any_thread(queued: TaskState, how: str) -> None:
    before = count_rows(queued)["taskstate_job"]
    calls: dict[str, Any] = {"start": lambda: taskstate.start(say.s()), "X.start": say.start, "delay": say.delay}
    failed: list[BaseException] = []

    def run() -> None:
        try:
            calls[how]()
        except Exception as exc:
            failed.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()

    assert failed == []
    assert count_rows(queued)["taskstate_job"] == before + 1


def test_error_of_arguments_is_a_type_error_too() -> None:
    assert issubclass(ArgumentsError, TypeError)
    assert issubclass(ArgumentsError, TaskStateError)


@pytest.mark.databases("postgresql")
@pytest.mark.parametrize("bad", [object(), threading.Lock(), {1, 2}, 10**5000], ids=["object", "lock", "set", "huge"])
@pytest.mark.parametrize("shape", IN_SHAPES)
def test_arguments_that_cannot_be_serialised_leave_no_row(queued: TaskState, bad: Any, shape: str) -> None:
    # JSON has no set, and Python no text for an int of so many digits.
    work = SHAPES[shape](say.si(bad))
    before = count_rows(queued)

    with pytest.raises(ArgumentsError, match="serialised"):
        queued.start(work)

    assert count_rows(queued) == before


@pytest.mark.parametrize("parameters", [float("nan"), {"k": object()}, {1, 2}], ids=["nan", "object", "set"])
def test_parameters_that_json_cannot_hold_leave_no_row(queued: TaskState, parameters: Any) -> None:
    before = count_rows(queued)

    with pytest.raises(ArgumentsError, match="parameters"):
        queued.start(say.s(), parameters=parameters)

    assert count_rows(queued) == before


@pytest.mark.parametrize("work", [None, 5, "tests.apps.jobs.say", b"", [1]], ids=repr)
def test_what_is_no_signature_is_refused(queued: TaskState, work: Any) -> None:
    with pytest.raises(ArgumentsError, match="signature"):
        queued.start(work)


@pytest.mark.parametrize("work", [{}, {"task": "x"}], ids=repr)
def test_dict_that_is_no_signature_is_refused(queued: TaskState, work: Any) -> None:
    with pytest.raises(ArgumentsError, match="signature"):
        queued.start(work)


@pytest.mark.parametrize("task", [0, -1, 999, "999", "x", "", 10**30, "9" * 5000, 1.5, True, b"1"], ids=_short)
def test_task_that_does_not_exist_is_refused(queued: TaskState, task: Any) -> None:
    before = count_rows(queued)

    with pytest.raises(TaskNotFoundError):
        queued.start(say.s(), task=task)

    assert count_rows(queued) == before
    assert not queued.session.in_transaction()


@pytest.mark.parametrize("call", ["wait", "finish", "cancel"])
@pytest.mark.parametrize("task", [0, 999, "x", 1.5, True], ids=repr)
def test_other_calls_refuse_a_task_that_does_not_exist(queued: TaskState, call: str, task: Any) -> None:
    arguments: dict[str, Any] = {"timeout": 0} if call == "wait" else {}
    with pytest.raises(TaskNotFoundError):
        getattr(queued, call)(task, **arguments)


@pytest.mark.parametrize("call", ["wait", "finish", "cancel"])
@pytest.mark.parametrize("task", [10**30, "9" * 30, "9" * 5000], ids=["int", "digits", "many digits"])
def test_other_calls_refuse_a_huge_id(queued: TaskState, call: str, task: Any) -> None:
    arguments: dict[str, Any] = {"timeout": 0} if call == "wait" else {}
    with pytest.raises(TaskNotFoundError):
        getattr(queued, call)(task, **arguments)


def test_object_whose_row_was_deleted_is_not_found(queued: TaskState) -> None:
    task = ProcessingTask("gone")
    task.save(commit=True)
    with queued.database.transaction() as connection:
        connection.execute(delete(ProcessingTask.__table__))

    with pytest.raises(TaskNotFoundError):
        queued.start(say.s(), task=task)


@pytest.mark.parametrize("by", ["object", "id", "text"])
def test_finished_task_gets_no_more_work(queued: TaskState, by: str) -> None:
    task = ProcessingTask("done", task_status="SUCCESS")
    task.save(commit=True)
    given: Any = {"object": task, "id": task.id, "text": str(task.id)}[by]
    before = count_rows(queued)

    with pytest.raises(TaskFinishedError, match="SUCCESS"):
        queued.start(say.s(), task=given, task_name="changed", webhook_href="http://w", task_href="http://t")

    assert count_rows(queued) == before
    assert read(task.id).task_name == "done"


def test_celery_id_is_used_once_in_a_task(queued: TaskState) -> None:
    task = queued.start(say.s(), task_id="one")
    before = count_rows(queued)

    with pytest.raises(DuplicateExecutionError, match="one"):
        queued.start(say.s(), task=task, task_id="one", task_name="changed")

    assert count_rows(queued) == before
    assert read(task.id).task_name != "changed"


@pytest.mark.parametrize("shape", ["first of a chain", "later in a chain", "in a group", "chain option"])
def test_celery_id_is_used_once_in_a_task_by_any_member(queued: TaskState, shape: str) -> None:
    task = queued.start(say.s(), task_id="one")
    options: dict[str, Any] = {}
    work: Any
    match shape:
        case "first of a chain":
            work = chain(say.si().set(task_id="one"), say.si())
        case "later in a chain":
            work = chain(say.si(), say.si().set(task_id="one"))
        case "in a group":
            work = group(say.si(), say.si().set(task_id="one"))
        case _:
            work, options = chain(say.si(), say.si()), {"task_id": "one"}

    with pytest.raises(DuplicateExecutionError):
        queued.start(work, task=task, **options)


@pytest.mark.parametrize("canvas", [chain, group])
def test_celery_id_is_used_once_in_a_canvas(queued: TaskState, canvas: Any) -> None:
    with pytest.raises(DuplicateExecutionError):
        queued.start(canvas(say.si().set(task_id="twin"), say.si().set(task_id="twin")))


def test_many_threads_start_with_one_celery_id_and_one_wins(queued: TaskState) -> None:
    task = ProcessingTask("raced")
    task.save(commit=True)
    outcomes: list[str] = []

    def run() -> None:
        queued.app.set_current()
        try:
            queued.start(say.s(), task=task.id, task_id="raced")
            outcomes.append("ok")
        except DuplicateExecutionError:
            outcomes.append("refused")

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes) == ["ok"] + ["refused"] * 5


def test_celery_id_longer_than_its_column_is_refused_or_found(queued: TaskState) -> None:
    try:
        task = queued.start(say.s(), task_id="x" * 300)
    except TaskStateError:
        return
    found = queued.find("x" * 300)
    assert found is not None
    assert found.id == task.id


def test_celery_id_that_is_no_text_is_refused_cleanly(queued: TaskState) -> None:
    with pytest.raises((TaskStateError, TypeError, ValueError)):
        queued.start(say.s(), task_id=5)

    assert not queued.session.in_transaction()


@pytest.mark.parametrize(
    "argument",
    [{"task_name": "x" * 501}, {"webhook_href": "http://h/" + "x" * 5000, "task_href": "http://t"}],
    ids=["task_name", "webhook_href"],
)
def test_text_too_long_leaves_no_row(queued: TaskState, argument: dict[str, Any]) -> None:
    before = count_rows(queued)

    with pytest.raises(TextTooLongError):
        queued.start(say.s(), **argument)

    assert count_rows(queued) == before
    assert queued.start(say.s()).id


def test_text_too_long_for_a_waiting_task_changes_nothing(queued: TaskState) -> None:
    task = at_step()
    before = count_rows(queued)

    with pytest.raises(TextTooLongError):
        queued.start(say.s(), task=task.id, answers="k", task_name="x" * 501)

    assert count_rows(queued) == before
    row = read(task.id)
    assert (row.has_uncleared_step, row.task_name) == (True, "with a step")


@pytest.mark.parametrize("argument", ["task_name", "parameters"])
def test_a_text_that_no_column_can_hold_is_cleaned_where_people_read_it(queued: TaskState, argument: str) -> None:
    arguments: dict[str, Any] = {argument: "file \udc80"}

    task = queued.start(say.s(), **arguments)

    assert getattr(read(task.id), argument) == "file ?"
    assert queued.start(say.s()).id


def test_webhook_arguments_need_a_webhook_and_a_task_href(queued: TaskState) -> None:
    before = count_rows(queued)
    with pytest.raises(SettingsError):
        queued.start(say.s(), event="status")
    with pytest.raises(SettingsError):
        queued.start(say.s(), webhook_href="https://me.example")

    assert count_rows(queued) == before


def test_broker_down_ends_the_task_as_error_with_the_reason(make_state: MakeState) -> None:
    state = make_state(broker=DEAD_BROKER)

    for work in (say.s("x"), group(say.s(), say.s()), chord([say.s()], nothing.si())):
        task = ProcessingTask("told")
        with pytest.raises(BrokerUnavailableError) as caught:
            state.start(work, task=task)
        row = read(task.id)
        assert row.status == "ERROR"
        assert "Connection refused" in row.task_log
        assert "hunter2" not in row.task_log + str(caught.value)
    assert count_rows(state)["taskstate_hold"] == 0


def test_broker_down_changes_nothing_when_a_step_is_answered(make_state: MakeState) -> None:
    state = make_state(broker=DEAD_BROKER)
    task = at_step()
    before = count_rows(state)

    with pytest.raises(BrokerUnavailableError):
        state.start(
            say.s(),
            task=task,
            answers="k",
            task_name="x",
            parameters="y",
            webhook_href="http://w",
            task_href="http://t",
        )

    assert count_rows(state) == before
    row = read(task.id)
    assert (row.status, row.has_uncleared_step, row.task_name, row.parameters) == ("PENDING", True, "with a step", "")


@pytest.mark.databases("sqlite")
def test_broker_that_never_answers_is_noticed(make_state: MakeState, mute_broker: str) -> None:
    state = make_state(broker=mute_broker)
    task_id = at_step().id
    state.session.close()
    seen: list[BaseException] = []

    def run() -> None:
        state.app.set_current()
        try:
            state.start(say.s(), task=task_id, answers="k")
        except BaseException as exc:
            seen.append(exc)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(6)

    assert not thread.is_alive()
    assert isinstance(seen[0], BrokerUnavailableError)


@pytest.mark.parametrize("answers", ["z", "", 0, "K"])
def test_step_that_is_not_open_is_refused_and_stays(queued: TaskState, answers: Any) -> None:
    task = at_step("k")
    before = count_rows(queued)

    with pytest.raises(StepNotOpenError):
        queued.start(say.s(), task=task.id, answers=answers, task_name="changed")

    assert count_rows(queued) == before
    assert read(task.id).has_uncleared_step
    with pytest.raises(StepNotOpenError):
        queued.start(say.s(), answers=answers)
    assert count_rows(queued) == before


def test_step_answered_by_many_at_once_is_answered_by_one(queued: TaskState) -> None:
    task_id = at_step().id
    before = count_rows(queued)["taskstate_execution"]
    outcomes: list[str] = []

    def run() -> None:
        queued.app.set_current()
        try:
            queued.start(say.s(), task=task_id, answers="k")
            outcomes.append("ok")
        except StepNotOpenError:
            outcomes.append("refused")

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes) == ["ok"] + ["refused"] * 5
    assert count_rows(queued)["taskstate_execution"] == before + 1


def test_bad_option_changes_nothing_when_a_step_is_answered(queued: TaskState) -> None:
    task_id = at_step().id

    with pytest.raises((TaskStateError, TypeError)):
        queued.start(say.s(), task=task_id, answers="k", countdown="soon")

    row = read(task_id)
    assert (row.status, row.has_uncleared_step) == ("PENDING", True)


def test_bad_option_is_refused_before_anything_is_written(queued: TaskState) -> None:
    before = count_rows(queued)
    with pytest.raises(ArgumentsError, match="soon"):
        queued.start(say.s(), countdown="soon")

    assert count_rows(queued) == before


CALLS: dict[str, Any] = {
    "start": lambda state: state.start(say.s()),
    "start of a known task": lambda state: state.start(say.s(), task=1),
    "wait": lambda state: state.wait(1, timeout=0),
    "find": lambda state: state.find("x"),
    "finish": lambda state: state.finish(1),
    "cancel": lambda state: state.cancel(1),
    "describe": lambda state: state.describe(1),
    "get_by_id": lambda state: ProcessingTask.get_by_id(1),
    "save": lambda state: ProcessingTask("job").save(commit=True),
}


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    "call",
    list(CALLS),
)
@pytest.mark.parametrize(
    "url", ["sqlite:////no/such/folder/x.db", "postgresql+psycopg://joe:hunter2@127.0.0.1:1/x"], ids=["sqlite", "pg"]
)
def test_database_that_cannot_be_reached_is_named(make_state: MakeState, call: str, url: str) -> None:
    state = make_state(url=url)

    with pytest.raises(DatabaseUnavailableError, match=r"no/such/folder|127\.0\.0\.1") as caught:
        CALLS[call](state)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("call", list(CALLS))
def test_schema_that_is_not_there_is_named_with_what_to_run(
    make_state: MakeState, empty_database_url: str, call: str
) -> None:
    state = make_state(url=empty_database_url)

    with pytest.raises(SchemaError, match="taskstate upgrade"):
        CALLS[call](state)


def test_declared_db_id_is_filled_in_in_every_position(eager: TaskState) -> None:
    task = eager.start(chain(say.si("a"), with_id.s(), remember.si("k", 1), with_id.si("last")))  # type: ignore[call-arg, call-overload]

    assert (task.status, task.data) == ("SUCCESS", {"k": 1})
    assert task.task_log.endswith(f"last {task.id}")


def test_eager_start_returns_the_finished_task(eager: TaskState) -> None:
    assert eager.start(say.s("done")).task_log == "done"
    assert eager.start(fail.s("no")).status == "ERROR"
    assert eager.start(group([])).status == "SUCCESS"
    assert eager.start(ask.s("k")).has_uncleared_step
