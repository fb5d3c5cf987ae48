"""Messages that the broker loses, keeps twice, or delivers again, and what becomes of their tasks."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chain, group
from redis import Redis
from sqlalchemy import func, select

from qhana_taskstate import TaskState
from qhana_taskstate.broker.lost_messages import Broker, Sought
from qhana_taskstate.database.tables.executions import execution_table, message_table
from qhana_taskstate.testing.plugin import StartWorker
from qhana_taskstate.testing.rabbitmq_server import RabbitMQServer
from qhana_taskstate.testing.redis_server import RedisServer
from tests.crash.conftest import SOON, Site
from tests.crash.test_lost_work import log, status, work
from tests.waiting import wait_until

#: Looked for after so many seconds, three times at least.
MISSING: dict[str, Any] = {"missing_after_seconds": 0.5}


def make_site(app: Celery, url: str, folder: Path, start: StartWorker, broker_url: str) -> Iterator[Site]:
    app.conf.task_default_queue = "crash"
    soon = {**SOON, **MISSING}
    environment = {f"TASKSTATE_{name.upper()}": str(value) for name, value in soon.items()}
    environment |= {"CELERY_BROKER_URL": broker_url, "TASKSTATE_DATABASE_URL": url}
    taskstate = TaskState(app, database_url=url, **soon)
    taskstate.upgrade()
    app.set_current()
    app.loader.import_default_modules()
    yield Site(app, taskstate, folder, environment, start)
    taskstate.close()
    app.close()


@pytest.fixture
def forgetful(
    taskstate_database_url: str, broker_url: str, start_worker: StartWorker, tmp_path: Path
) -> Iterator[Site]:
    """A site whose client looks soon for messages that wait."""
    app = Celery("crash", broker=broker_url, include=["tests.apps.messages"])
    yield from make_site(app, taskstate_database_url, tmp_path, start_worker, broker_url)


@pytest.fixture
def on_rabbitmq(
    taskstate_database_url: str, rabbitmq_url: str, start_worker: StartWorker, tmp_path: Path
) -> Iterator[Site]:
    """The same on RabbitMQ."""
    app = Celery("crash", broker=rabbitmq_url, include=["tests.apps.messages"])
    yield from make_site(app, taskstate_database_url, tmp_path, start_worker, rabbitmq_url)


def kept_work(site: Site, name: str, *arguments: object) -> Any:
    return site.app.tasks[f"tests.apps.messages.{name}"].s(*arguments)


def keep_looking(site: Site, seconds: float) -> None:
    """Look for lost work for so long, and expect to find none."""
    upkeep = site.taskstate.parts.upkeep
    looks = upkeep._lookout
    seen = 0

    def enough() -> bool:
        nonlocal seen
        settled = site.taskstate.upkeep()
        assert settled is not None
        assert not settled, settled
        seen += 1
        return seen > seconds / 0.1

    wait_until("it was looked for long enough", enough, timeout=seconds * 10 + 20, interval=0.1)
    assert looks is upkeep._lookout


def test_queued_work_whose_queue_was_purged_ends_with_the_reason(forgetful: Site) -> None:
    task = forgetful.taskstate.start(work(forgetful, "nothing"))
    forgetful.app.control.purge()

    task = forgetful.taskstate.wait(task.id, timeout=30)

    assert task.status == "ERROR"
    assert "MessageLostError" in task.task_log
    assert "'crash'" in task.task_log
    assert forgetful.executions(task.id) == [("nothing", "LOST", 0)]


def test_canvas_whose_messages_vanished_ends_with_nothing_open(forgetful: Site) -> None:
    task = forgetful.taskstate.start(group([kept_work(forgetful, "forgotten", "") for _ in range(5)]))
    forgetful.app.control.purge()

    task = forgetful.taskstate.wait(task.id, timeout=30)
    assert task.status == "ERROR"

    def nothing_open() -> bool:
        forgetful.taskstate.upkeep()
        return {state for _, state, _ in forgetful.executions(task.id)} == {"LOST"}

    wait_until("the others are settled too", nothing_open, timeout=30, interval=0.1)


def test_work_that_waits_in_its_queue_is_left_alone(forgetful: Site) -> None:
    task = forgetful.taskstate.start(work(forgetful, "nothing"))
    urgent = forgetful.taskstate.start(work(forgetful, "nothing"), priority=9)

    keep_looking(forgetful, 4)

    assert (status(task.id), status(urgent.id)) == ("PENDING", "PENDING")
    forgetful.worker()
    assert forgetful.taskstate.wait(task.id, timeout=30).status == "SUCCESS"
    assert forgetful.taskstate.wait(urgent.id, timeout=30).status == "SUCCESS"


def test_work_that_a_busy_worker_has_taken_in_advance_is_left_alone(forgetful: Site) -> None:
    forgetful.worker()
    later = forgetful.taskstate.start(work(forgetful, "nothing"), countdown=3)
    redis = Redis.from_url(str(forgetful.app.conf.broker_url))
    wait_until("the worker has taken it", lambda: redis.hlen("unacked") == 1, timeout=10)
    first = forgetful.taskstate.start(work(forgetful, "waits", str(forgetful.folder)))
    forgetful.begun()
    second = forgetful.taskstate.start(work(forgetful, "nothing"))
    wait_until("the worker has taken this too", lambda: redis.hlen("unacked") == 2, timeout=10)

    # Longer than the visibility timeout of this app's worker would be a redelivery; that is another test.
    keep_looking(forgetful, 1.5)
    forgetful.go()

    for task in (first, second, later):
        assert forgetful.taskstate.wait(task.id, timeout=30).status == "SUCCESS"


def test_queue_of_another_name_and_key_prefix_are_found(
    taskstate_database_url: str, broker_url: str, start_worker: StartWorker, tmp_path: Path
) -> None:
    app = Celery("crash", broker=broker_url, include=["tests.apps.messages"])
    app.conf.broker_transport_options = {"global_keyprefix": "mine:", "priority_steps": [0, 5], "sep": ":"}
    for site in make_site(app, taskstate_database_url, tmp_path, start_worker, broker_url):
        there = site.taskstate.start(work(site, "nothing"), queue="other", priority=5)
        gone = site.taskstate.start(work(site, "nothing"), queue="third")
        redis = Redis.from_url(broker_url)
        assert redis.llen("mine:other:5") == 1
        assert redis.delete("mine:third") == 1

        task = site.taskstate.wait(gone.id, timeout=30)

        assert task.status == "ERROR"
        assert "'third'" in task.task_log
        assert status(there.id) == "PENDING"


def test_message_that_is_not_acknowledged_is_there(forgetful: Site) -> None:
    celery_id = forgetful.app.send_task("tests.apps.crash.nothing").id
    broker = Broker(forgetful.app)
    sought = [Sought(celery_id=celery_id, queue="crash"), Sought(celery_id="unheard-of", queue="crash")]
    assert broker.find_missing(sought) == {"unheard-of"}
    redis: Any = Redis.from_url(str(forgetful.app.conf.broker_url))
    redis.hset("unacked", "a tag", json.dumps([json.loads(redis.rpop("crash")), "", "crash"]))

    assert broker.find_missing(sought) == {"unheard-of"}

    redis.delete("unacked")
    assert broker.find_missing(sought) == {celery_id, "unheard-of"}


def test_long_queue_is_read_in_pages_and_what_is_missing_in_it_is_found(forgetful: Site) -> None:
    redis = Redis.from_url(str(forgetful.app.conf.broker_url))
    message = {"body": "", "headers": {}, "properties": {}}
    with redis.pipeline() as pipe:
        for number in range(5000):
            pipe.lpush("crash", json.dumps({**message, "headers": {"id": f"id-{number}"}}))
        pipe.lpush("crash", "no JSON at all")
        pipe.execute()
    sought = [Sought(celery_id=name, queue="crash") for name in ("id-0", "id-2500", "id-4999", "nowhere")]

    assert Broker(forgetful.app).find_missing(sought) == {"nowhere"}
    stop = threading.Event()
    stop.set()
    assert Broker(forgetful.app).find_missing(sought, stop) == set()


def test_running_tasks_end_well_when_redis_comes_back_empty_and_queued_ones_end_as_errors(
    taskstate_database_url: str, start_worker: StartWorker, tmp_path: Path
) -> None:
    with RedisServer() as redis:
        app = Celery("crash", broker=redis.url, include=["tests.apps.messages"])
        for site in make_site(app, taskstate_database_url, tmp_path, start_worker, redis.url):
            site.worker()
            running = site.taskstate.start(work(site, "waits", str(site.folder)))
            site.begun()
            queued = site.taskstate.start(work(site, "nothing"))
            kept = site.taskstate.start(kept_work(site, "sent_again", str(site.folder)))

            redis.restart(keep_data=False)
            site.go()

            assert site.taskstate.wait(running.id, timeout=40).status == "SUCCESS"
            assert site.taskstate.wait(queued.id, timeout=40).status == "ERROR"
            assert "MessageLostError" in log(queued.id)
            assert site.taskstate.wait(kept.id, timeout=40).status == "SUCCESS"


def kept_messages(site: Site) -> int:
    with site.taskstate.database.reading() as connection:
        return int(connection.execute(select(func.count()).select_from(message_table)).scalar_one())


def test_kept_message_is_sent_again_with_its_canvas_and_forgotten_at_the_end(forgetful: Site) -> None:
    folder = str(forgetful.folder)
    task = forgetful.taskstate.start(
        chain(kept_work(forgetful, "sent_again", folder, "a word"), kept_work(forgetful, "follows", folder))
    )
    [row] = forgetful.taskstate.database.read(
        lambda connection: connection.execute(select(execution_table.c.celery_id)).all()
    )
    assert kept_messages(forgetful) == 1
    forgetful.app.control.purge()

    def sent_again() -> bool:
        settled = forgetful.taskstate.upkeep()
        return bool(settled and settled.resent)

    wait_until("it is sent again", sent_again, timeout=30, interval=0.1)
    assert status(task.id) == "PENDING"
    forgetful.worker()
    task = forgetful.taskstate.wait(task.id, timeout=30)

    assert task.status == "SUCCESS"
    assert (forgetful.folder / "begun").read_text().splitlines() == ["sent_again", "follows a word"]
    ids = forgetful.taskstate.database.read(
        lambda connection: connection.execute(select(execution_table.c.celery_id)).scalars().all()
    )
    assert row.celery_id in ids
    assert len(ids) == 2
    assert kept_messages(forgetful) == 0


def test_kept_message_that_is_lost_every_time_is_given_up(forgetful: Site) -> None:
    task = forgetful.taskstate.start(kept_work(forgetful, "sent_again", str(forgetful.folder)))

    def ended() -> bool:
        forgetful.app.control.purge()
        forgetful.taskstate.upkeep()
        return status(task.id) == "ERROR"

    wait_until("it is given up", ended, timeout=60, interval=0.1)
    assert kept_messages(forgetful) == 0


def test_arguments_stand_in_no_table_unless_asked_for(forgetful: Site) -> None:
    secret = "a-word-that-nobody-else-uses"
    forgetful.taskstate.start(chain(kept_work(forgetful, "follows", secret, "x"), kept_work(forgetful, "forgotten")))
    forgetful.app.tasks["tests.apps.messages.forgotten"].delay(secret)

    with forgetful.taskstate.database.reading() as connection:
        for table in execution_table.metadata.sorted_tables:
            for row in connection.execute(select(table)).all():
                assert secret not in repr(tuple(row)), table.name


def test_rabbitmq_purged_queue_ends_queued_work(on_rabbitmq: Site) -> None:
    on_rabbitmq.worker()
    running = on_rabbitmq.taskstate.start(work(on_rabbitmq, "waits", str(on_rabbitmq.folder)))
    on_rabbitmq.begun()
    # The worker takes one more in advance; the next one stays in the queue.
    taken = on_rabbitmq.taskstate.start(work(on_rabbitmq, "nothing"))
    lost = on_rabbitmq.taskstate.start(work(on_rabbitmq, "nothing"), queue="elsewhere")
    with on_rabbitmq.app.connection_for_write() as connection:
        channel: Any = connection.default_channel
        channel.queue_purge("elsewhere")

    assert on_rabbitmq.taskstate.wait(lost.id, timeout=60).status == "ERROR"
    assert (status(running.id), status(taken.id)) == ("PENDING", "PENDING")

    on_rabbitmq.go()
    assert on_rabbitmq.taskstate.wait(running.id, timeout=30).status == "SUCCESS"
    assert on_rabbitmq.taskstate.wait(taken.id, timeout=30).status == "SUCCESS"


def lines(site: Site) -> list[str]:
    """What has begun, in order."""
    return (site.folder / "begun").read_text().splitlines()


def deliveries(site: Site, task_id: int) -> list[int]:
    with site.taskstate.database.reading() as connection:
        return list(
            connection.execute(
                select(execution_table.c.deliveries).where(execution_table.c.task_id == task_id)
            ).scalars()
        )


def test_message_delivered_twice_changes_nothing(forgetful: Site) -> None:
    folder = str(forgetful.folder)
    task = forgetful.taskstate.start(
        chain(kept_work(forgetful, "sent_again", folder, "a word"), kept_work(forgetful, "follows", folder))
    )
    redis: Any = Redis.from_url(str(forgetful.app.conf.broker_url))
    [message] = redis.lrange("crash", 0, -1)
    redis.lpush("crash", message, message)
    worker = forgetful.worker()

    ended = forgetful.taskstate.wait(task.id, timeout=30)
    finished_at, told = ended.finished_at, ended.task_log
    wait_until("all copies are gone", lambda: worker.logs().count("ignored") >= 2, timeout=20)

    row = forgetful.taskstate.wait(task.id)
    assert (row.status, row.finished_at, row.task_log) == ("SUCCESS", finished_at, told)
    assert lines(forgetful) == ["sent_again", "follows a word"]
    assert sorted(state for _, state, _ in forgetful.executions(task.id)) == ["SUCCESS", "SUCCESS"]


def test_message_delivered_again_while_the_first_run_goes_on_changes_nothing(forgetful: Site) -> None:
    workers = [forgetful.worker(concurrency=2), forgetful.worker()]
    task = forgetful.taskstate.start(work(forgetful, "waits_late", str(forgetful.folder)))
    forgetful.begun()
    # The visibility timeout of this app is two seconds.
    wait_until("it came again", lambda: any("ignored" in one.logs() for one in workers), timeout=40)
    assert status(task.id) == "PENDING"
    assert [state for _, state, _ in forgetful.executions(task.id)] == ["RUNNING"]

    forgetful.go()
    row = forgetful.taskstate.wait(task.id, timeout=30)

    assert (row.status, row.task_log) == ("SUCCESS", "went on")
    assert lines(forgetful) == ["waits_late"]
    assert deliveries(forgetful, task.id) == [1]


def test_message_delivered_again_after_its_worker_died_is_run(forgetful: Site) -> None:
    first = forgetful.worker()
    task = forgetful.taskstate.start(work(forgetful, "waits_late", str(forgetful.folder)))
    forgetful.begun()
    first.kill_tree()
    forgetful.go()
    forgetful.worker()

    assert forgetful.taskstate.wait(task.id, timeout=30).status == "SUCCESS"
    assert lines(forgetful) == ["waits_late", "waits_late"]


def test_rabbitmq_restart_loses_no_work(taskstate_database_url: str, start_worker: StartWorker, tmp_path: Path) -> None:
    with RabbitMQServer() as server:
        app = Celery("crash", broker=server.url, include=["tests.apps.messages"])
        for site in make_site(app, taskstate_database_url, tmp_path, start_worker, server.url):
            site.worker()
            running = site.taskstate.start(work(site, "waits", str(site.folder)))
            site.begun()
            queued = [site.taskstate.start(work(site, "nothing")).id for _ in range(3)]

            server.restart()
            keep_looking(site, 3)
            site.go()

            for task_id in (running.id, *queued):
                assert site.taskstate.wait(task_id, timeout=60).status == "SUCCESS"


@pytest.mark.databases("postgresql")
def test_worker_of_rabbitmq_that_does_not_answer_keeps_its_work(on_rabbitmq: Site) -> None:
    worker = on_rabbitmq.worker()
    running = on_rabbitmq.taskstate.start(work(on_rabbitmq, "waits", str(on_rabbitmq.folder)))
    on_rabbitmq.begun()
    taken = on_rabbitmq.taskstate.start(work(on_rabbitmq, "nothing"))
    wait_until("it is taken", lambda: worker.logs().count("received") == 2, timeout=20)
    worker.freeze()

    keep_looking(on_rabbitmq, 3)

    worker.thaw()
    on_rabbitmq.go()
    assert on_rabbitmq.taskstate.wait(running.id, timeout=30).status == "SUCCESS"
    assert on_rabbitmq.taskstate.wait(taken.id, timeout=30).status == "SUCCESS"
