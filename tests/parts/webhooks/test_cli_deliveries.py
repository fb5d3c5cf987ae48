"""The commands that list and replay deliveries, against real receivers and workers."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import redis
from celery.bin.base import CLIContext
from click.testing import CliRunner
from sqlalchemy import delete, insert, update

from qhana_taskstate import ProcessingTask, TaskState, TaskUpdateSubscription
from qhana_taskstate.cli.group import taskstate as command_group
from qhana_taskstate.database.dialects import database_time
from qhana_taskstate.database.tables.deliveries import delivery_table, host_table
from qhana_taskstate.database.tables.upkeep import upkeep_table
from qhana_taskstate.testing.plugin import RunCelery, StartWorker
from qhana_taskstate.testing.receiver import Reply, Told, WebhookReceiver
from tests.apps.factory import make_app
from tests.parts.webhooks.conftest import SOON
from tests.waiting import wait_until

TASK = "https://plugin.example/tasks/7/?a=b"

#: Runs a command of the group with `--json`, checks its exit code, and returns what it printed.
Command = Callable[..., Any]


@pytest.fixture
def state(migrated_database_url: str, broker_url: str) -> Iterator[TaskState]:
    """The client's side, where each delivery has one attempt."""
    app, state = make_app(broker_url, None, migrated_database_url, **{**SOON, "webhook_retry_schedule": []})
    app.set_current()
    yield state
    state.close()
    app.close()


@pytest.fixture
def command(state: TaskState) -> Command:
    def run(*args: str, code: int = 0, as_json: bool = True) -> Any:
        context = CLIContext(app=state.app, no_color=True, workdir=None)
        words = [*args, "--json"] if as_json else list(args)
        done = CliRunner().invoke(command_group, words, obj=context, prog_name="celery taskstate")
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        assert done.exit_code == code, done.output
        assert "hunter2" not in done.output
        return json.loads(done.stdout) if as_json else done

    return run


@pytest.fixture
def out_of_order(receiver: WebhookReceiver) -> WebhookReceiver:
    """A receiver that answers every call with 500."""
    receiver.answer = _fail
    return receiver


def _fail(told: Told) -> Reply:
    return Reply(500)


def _accept(told: Told) -> Reply:
    return Reply()


def _end_a_task(state: TaskState, receiver: WebhookReceiver) -> ProcessingTask:
    """End a task whose end is to be told, and make the calls."""
    task = ProcessingTask("job")
    task.save(commit=True)
    state.subscribe(task, receiver.href("/hook?token=hunter2"), TASK, event="status")
    state.finish(task)
    assert state.deliverer.run() == 1
    return task


@pytest.mark.mariadb
def test_dead_delivery_is_listed_and_replayed_and_arrives(
    state: TaskState,
    out_of_order: WebhookReceiver,
    command: Command,
    start_worker: StartWorker,
    run_celery: RunCelery,
) -> None:
    receiver = out_of_order
    task = _end_a_task(state, receiver)

    (dead,) = command("deliveries", "--dead")
    assert (dead["task_id"], dead["event"], dead["state"], dead["sequence"]) == (task.id, "status", "dead", 1)
    assert (dead["attempts"], dead["due_at"]) == (1, None)
    assert "500" in dead["answer"]
    assert dead["webhook_href"] == f"{receiver.href('/hook')}?token=…"

    receiver.answer = _accept
    start_worker("tests.apps.webhooks:app", concurrency=1)
    replayed = run_celery("-A", "tests.apps.webhooks", "taskstate", "replay", str(dead["id"]))
    assert (replayed.returncode, replayed.stdout) == (0, "1 delivery will be made once more\n"), replayed.stderr

    wait_until("it was told once more", lambda: len(receiver.calls) == 2)
    first, second = receiver.calls
    assert [first.sequence, second.sequence] == [1, 2]
    assert first.message_id != second.message_id
    assert (second.source, second.status) == (TASK, "SUCCESS")
    assert first.message["timestamp"] < second.message["timestamp"]
    (told,) = wait_until("nothing is owed", lambda: [d for d in command("deliveries") if d["state"] == "told"])
    assert (told["id"], told["dead_at"], told["sequence"]) == (dead["id"], None, 2)
    assert command("deliveries", "--dead") == []


@pytest.mark.mariadb
def test_all_dead_ones_are_replayed_or_those_of_a_task(
    state: TaskState, out_of_order: WebhookReceiver, command: Command
) -> None:
    tasks = [_end_a_task(state, out_of_order) for _ in range(3)]
    dead = {delivery["task_id"]: delivery["id"] for delivery in command("deliveries", "--dead")}
    assert dead.keys() == {task.id for task in tasks}

    of_one = command("replay", "--all-dead", "--task", str(tasks[1].id))
    assert of_one["replayed"] == [dead[tasks[1].id]]
    assert [d["task_id"] for d in command("deliveries", "--dead", "--task", str(tasks[1].id))] == []
    rest = command("replay", "--all-dead")
    assert rest["replayed"] == sorted([dead[tasks[0].id], dead[tasks[2].id]])
    assert command("replay", "--all-dead", code=1)["replayed"] == []

    assert {delivery["state"] for delivery in command("deliveries")} == {"due"}


def test_more_dead_ones_than_one_transaction_takes_are_replayed(
    state: TaskState, out_of_order: WebhookReceiver, command: Command
) -> None:
    task = _end_a_task(state, out_of_order)
    ids = range(1000, 2100)
    href = out_of_order.href()
    with state.database.transaction() as connection:
        moment = database_time(connection)
        subscribed = [{"id": n, "task_id": task.id, "webhook_href": href, "task_href": TASK} for n in ids]
        connection.execute(insert(TaskUpdateSubscription), subscribed)
        given_up = {"event": "status", "task_id": task.id, "host": "h", "sequence": 1, "attempts": 1, "dead_at": moment}
        connection.execute(insert(delivery_table), [{"subscription_id": n, **given_up} for n in ids])

    assert len(command("replay", "--all-dead")["replayed"]) == 1101


def test_table_says_what_became_of_each_delivery(
    state: TaskState, out_of_order: WebhookReceiver, command: Command
) -> None:
    task = _end_a_task(state, out_of_order)
    with WebhookReceiver(secrets=SOON["webhook_secrets"]) as other:
        _end_a_task(state, other)

    head, newest, oldest = command("deliveries", as_json=False).stdout.splitlines()

    assert head.split("  ")[0] == "ID"
    assert " told " in newest
    assert f" {task.id} " in oldest
    assert " dead " in oldest
    assert oldest.endswith(f"{out_of_order.href('/hook')}?token=…")
    assert len(command("deliveries", "--limit", "1")) == 1
    assert command("deliveries", "--task", str(2**40)) == []
    assert command("deliveries", "--task", str(task.id + 1), "--dead", as_json=False).stderr == "no dead delivery\n"


def test_what_cannot_be_replayed_is_told(state: TaskState, out_of_order: WebhookReceiver, command: Command) -> None:
    tasks = [_end_a_task(state, out_of_order) for _ in range(3)]
    ids = {delivery["task_id"]: delivery["id"] for delivery in command("deliveries")}
    free, left, called = (ids[task.id] for task in tasks)
    state.unsubscribe(tasks[1], out_of_order.href("/hook?token=hunter2"))
    with state.database.transaction() as connection:
        later = database_time(connection) + timedelta(minutes=5)
        under_way = update(delivery_table).where(delivery_table.c.id == called)
        connection.execute(under_way.values(lease="somebody", leased_until=later))
    unknown, absurd = max(ids.values()) + 1000, 2**70

    named = [str(delivery_id) for delivery_id in (free, left, called, unknown, absurd, free)]
    told = command("replay", *named, code=1)

    assert told["replayed"] == [free]
    assert "subscribes" in told["refused"][str(left)] or "no such" in told["refused"][str(left)]
    assert "under way" in told["refused"][str(called)]
    assert "no such delivery" in told["refused"][str(unknown)]
    assert "no such delivery" in told["refused"][str(absurd)]
    in_words = command("replay", str(unknown), code=1, as_json=False)
    assert (in_words.stdout, in_words.stderr) == (
        "",
        f"delivery {unknown} was not replayed: there is no such delivery\n",
    )


@pytest.mark.mariadb
def test_what_no_worker_has_looked_at_yet_is_listed_as_due(
    state: TaskState, receiver: WebhookReceiver, command: Command
) -> None:
    task = ProcessingTask("job")
    task.save(commit=True)
    state.subscribe(task, receiver.href(), TASK, event="status")
    assert command("deliveries") == []
    state.finish(task)

    for _ in range(2):
        (owed,) = command("deliveries", "--task", str(task.id))
        assert (owed["event"], owed["state"], owed["sequence"], owed["attempts"]) == ("status", "due", 0, 0)
    assert state.deliverer.run() == 1
    assert [call.status for call in receiver.calls] == ["SUCCESS"]


def test_row_of_an_event_that_nobody_wants_is_no_delivery(
    state: TaskState, out_of_order: WebhookReceiver, command: Command
) -> None:
    _end_a_task(state, out_of_order)
    with state.database.reading() as connection:
        rows = connection.execute(delivery_table.select().where(delivery_table.c.event != "status")).all()
    assert len(rows) == 2

    assert command("replay", *(str(row.id) for row in rows), code=1)["replayed"] == []


@pytest.mark.parametrize("args", [[], ["1", "--all-dead"], ["1", "--task", "1"], ["--task", "1"], ["one"]])
def test_wrong_usage_is_told(state: TaskState, command: Command, args: list[str]) -> None:
    assert "Usage: " in command("replay", *args, code=2, as_json=False).stderr


def test_host_that_was_left_alone_is_called_at_once(
    state: TaskState, out_of_order: WebhookReceiver, command: Command
) -> None:
    _end_a_task(state, out_of_order)
    with state.database.transaction() as connection:
        later = database_time(connection) + timedelta(minutes=10)
        connection.execute(update(host_table).values(failures=20, closed_until=later))
    out_of_order.answer = _accept

    command("replay", "--all-dead")
    assert state.deliverer.run() == 1

    assert [call.sequence for call in out_of_order.calls] == [1, 2]


def test_command_that_ends_at_once_has_sent_the_message_that_wakes_the_deliveries(
    state: TaskState, out_of_order: WebhookReceiver, run_celery: RunCelery, new_redis_url: Callable[[], str]
) -> None:
    url = new_redis_url()
    words = ("-A", "tests.apps.webhooks", "taskstate", "replay", "--all-dead")
    with redis.Redis.from_url(url) as broker:
        for sent in (1, 2, 3):
            _end_a_task(state, out_of_order)
            state.parts.waker.at_exit()
            with state.database.transaction() as connection:
                # Otherwise a message of this process would still count as on its way.
                connection.execute(delete(upkeep_table))

            assert run_celery(*words, env={"CELERY_BROKER_URL": url}).returncode == 0

            assert broker.llen("jobs") == sent
            assert state.deliverer.run() == sent


def test_command_is_not_held_up_by_a_broker_that_never_answers(
    state: TaskState, out_of_order: WebhookReceiver, run_celery: RunCelery
) -> None:
    _end_a_task(state, out_of_order)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environment = {"CELERY_BROKER_URL": f"redis://127.0.0.1:{silent.getsockname()[1]}/0"}
        words = ("-A", "tests.apps.webhooks", "taskstate", "replay", "--all-dead")

        assert run_celery(*words, env=environment, timeout=30).returncode == 0
