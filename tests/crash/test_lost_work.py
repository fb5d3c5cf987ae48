"""Real workers that die in every way, and what the rows say afterwards."""

from __future__ import annotations

import time
from typing import Any

import pytest
from celery import chain, group, signature

from qhana_taskstate import ProcessingTask
from qhana_taskstate.database.dialects import database_time
from qhana_taskstate.database.tables.executions import execution_table
from qhana_taskstate.liveness import advisory_lock
from qhana_taskstate.store.executions import registration
from qhana_taskstate.upkeep import leader
from qhana_taskstate.upkeep import round as upkeep_round
from tests.crash.conftest import SOON, Site
from tests.waiting import wait_until

pytestmark = pytest.mark.versions

#: Seconds after which the broker delivers a message again that nobody acknowledged (`tests/apps/crash.py`), and a bit.
VISIBILITY_SECONDS = 2.5


def work(site: Site, name: str, *arguments: object) -> Any:
    return signature(f"tests.apps.crash.{name}", args=arguments, app=site.app)


def status(task_id: int) -> str:
    task = ProcessingTask.get_by_id(task_id)
    assert task is not None
    return task.status


def log(task_id: int) -> str:
    task = ProcessingTask.get_by_id(task_id)
    assert task is not None
    return task.task_log


def test_worker_killed_with_all_its_children_is_noticed_by_whoever_waits(site: Site) -> None:
    worker = site.worker()
    task = site.taskstate.start(work(site, "waits", str(site.folder)))
    wait_until("its log is written", lambda: log(task.id) == "began", timeout=15)

    worker.kill_tree()
    task = site.taskstate.wait(task.id, timeout=15)

    assert task.status == "ERROR"
    assert task.task_log.splitlines()[0] == "began"
    assert "WorkerLostError" in task.task_log
    assert worker.node_name in task.task_log


@pytest.mark.databases("sqlite")
def test_command_line_that_waits_notices_a_killed_worker(site: Site) -> None:
    worker = site.worker()
    task = site.taskstate.start(work(site, "waits", str(site.folder)))
    site.begun()

    worker.kill_tree()
    waited = site.command("wait", str(task.id), "--timeout", "20")

    assert (waited.returncode, waited.stdout.strip()) == (1, "ERROR"), waited.stderr


@pytest.mark.databases("postgresql")
@pytest.mark.parametrize("pool", ["threads", "solo", "gevent"])
def test_killed_worker_of_another_pool_is_noticed(site: Site, pool: str) -> None:
    worker = site.worker(pool=pool)
    task = site.taskstate.start(work(site, "waits", str(site.folder)))
    site.begun()

    worker.kill_tree()
    task = site.taskstate.wait(task.id, timeout=15)

    assert task.status == "ERROR"
    assert worker.node_name in task.task_log


def test_worker_killed_is_noticed_by_another_worker(site: Site) -> None:
    first = site.worker()
    task = site.taskstate.start(work(site, "waits", str(site.folder)))
    site.begun()
    site.worker()
    first.kill_tree()

    wait_until("the loss is settled", lambda: status(task.id) == "ERROR", timeout=15)


def test_worker_killed_is_noticed_by_upkeep_called_by_hand(site: Site) -> None:
    worker = site.worker()
    task = site.taskstate.start(work(site, "waits", str(site.folder)))
    site.begun()
    worker.kill_tree()

    def settled() -> bool:
        found = site.taskstate.upkeep()
        return bool(found and found.lost)

    wait_until("upkeep settles the loss", settled, timeout=15, interval=0.2)
    assert status(task.id) == "ERROR"


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.databases("postgresql")
def test_loss_is_settled_within_a_minute_with_the_default_settings(site: Site) -> None:
    site.environment = {key: value for key, value in site.environment.items() if "URL" in key or "BACKEND" in key}
    first = site.worker()
    task = site.taskstate.start(work(site, "waits", str(site.folder)))
    site.begun()
    # The one that is killed does the chores; the other has to take them over first.
    time.sleep(8)
    site.worker()
    site.client("from tests.apps.crash import start_and_die; start_and_die(100, 30)")

    first.kill_tree()
    killed = time.monotonic()
    wait_until(
        "worker and client are given up",
        lambda: (status(task.id), status(task.id + 1)) == ("ERROR", "ERROR"),
        timeout=60,
        interval=0.2,
    )

    assert time.monotonic() - killed <= 60


def test_late_acknowledged_work_is_handed_back_and_ends_well(site: Site) -> None:
    first = site.worker()
    task = site.taskstate.start(work(site, "waits_late", str(site.folder)))
    site.begun()
    due = time.monotonic() + VISIBILITY_SECONDS
    first.kill_tree()
    site.go()
    # kombu before 5.7 looks for messages that nobody acknowledged when a worker starts, and then every 100 s.
    wait_until("the broker may deliver it again", lambda: time.monotonic() > due, timeout=VISIBILITY_SECONDS + 5)
    site.worker()

    task = site.taskstate.wait(task.id, timeout=30)

    assert (task.status, task.task_log) == ("SUCCESS", "went on")


def test_silent_late_acknowledged_work_waits_for_its_redelivery(site: Site) -> None:
    worker = site.worker()
    task = site.taskstate.start(work(site, "waits_late", str(site.folder)))
    site.begun()
    worker.kill_tree()

    def handed_back() -> bool:
        site.taskstate.upkeep()
        return site.executions(task.id) == [("waits_late", "QUEUED", 1)]

    wait_until("it is handed back", handed_back, timeout=15, interval=0.2)
    assert status(task.id) == "PENDING"


def test_message_that_kills_its_child_every_time_is_given_up(site: Site) -> None:
    site.worker()
    task = site.taskstate.start(work(site, "kills_its_child", str(site.folder)))

    task = site.taskstate.wait(task.id, timeout=40)

    assert task.status == "ERROR"
    assert "is not tried again" in task.task_log
    assert len((site.folder / "begun").read_text().splitlines()) <= 4
    # The worker goes on with other work.
    assert site.taskstate.wait(site.taskstate.start(work(site, "nothing")).id, timeout=20).status == "SUCCESS"


def test_frozen_worker_elsewhere_is_given_up_and_its_late_result_changes_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = site.worker()
    task = site.taskstate.start(work(site, "waits", str(site.folder)))
    site.begun()
    site.freeze(worker)
    # As an observer on another machine sees it, who cannot ask for the process, and on a database without locks.
    monkeypatch.setattr(upkeep_round, "is_alive", lambda *_: False)
    monkeypatch.setattr(advisory_lock, "held", lambda *_: set())
    task = site.taskstate.wait(task.id, timeout=15)
    assert task.status == "ERROR"
    before = task.task_log

    worker.thaw()
    site.go()
    worker.wait_for_log("succeeded", 15)

    row = ProcessingTask.get_by_id(task.id)
    assert row is not None
    assert row.status == "ERROR"
    assert row.task_log.startswith(before)
    assert "could not be recorded" not in worker.logs()


def test_observer_that_came_to_a_halt_while_it_looks_stops_nobody(site: Site) -> None:
    task = site.taskstate.start(work(site, "waits", str(site.folder)))
    database = site.taskstate.database
    began = time.monotonic()

    with database.engine.connect() as halted, halted.begin():
        leader.lead(halted, "halted", database_time(halted), 60)
        with pytest.raises(TimeoutError):
            site.taskstate.wait(task.id, timeout=2)
        halted.get_transaction().rollback()  # type: ignore[union-attr]  # there is one

    # It is waited for by an observer of its own, for the limit of a lock at most.
    assert time.monotonic() - began < 30
    assert site.taskstate.upkeep() is not None


def test_frozen_worker_on_the_same_machine_is_alive(site: Site) -> None:
    worker = site.worker()
    task = site.taskstate.start(work(site, "waits", str(site.folder)))
    site.begun()
    site.freeze(worker)
    with pytest.raises(TimeoutError):
        site.taskstate.wait(task.id, timeout=4)

    worker.thaw()
    site.go()
    assert site.taskstate.wait(task.id, timeout=15).status == "SUCCESS"


def test_warm_shutdown_waits_for_a_long_task_and_is_no_loss(site: Site) -> None:
    worker = site.worker()
    task = site.taskstate.start(work(site, "waits", str(site.folder)))
    site.begun()
    worker.kill("SIGTERM")
    site.worker()
    with pytest.raises(TimeoutError):
        site.taskstate.wait(task.id, timeout=4)

    site.go()
    assert site.taskstate.wait(task.id, timeout=15).status == "SUCCESS"


def test_cold_shutdown_of_early_acknowledged_work_is_told_at_once(site: Site) -> None:
    worker = site.worker()
    task = site.taskstate.start(work(site, "waits", str(site.folder)))
    site.begun()
    worker.kill("SIGQUIT")

    task = site.taskstate.wait(task.id, timeout=15)
    assert task.status == "ERROR"


def test_healthy_task_that_holds_the_interpreter_is_not_given_up(site: Site) -> None:
    site.worker()
    site.worker()
    task = site.taskstate.start(work(site, "holds_the_interpreter", str(site.folder), 5))

    assert site.taskstate.wait(task.id, timeout=20).status == "SUCCESS"


def test_healthy_task_with_a_long_open_write_is_not_given_up(site: Site) -> None:
    site.worker()
    site.worker()
    task = site.taskstate.start(work(site, "keeps_a_write_open", str(site.folder), 5))

    task = site.taskstate.wait(task.id, timeout=30)
    assert (task.status, task.data) == ("SUCCESS", {"open": True})


def test_child_lost_between_publishing_and_recording_ends_as_error(site: Site) -> None:
    site.worker()
    task = site.taskstate.start(work(site, "publishes_and_dies", str(site.folder)))

    task = site.taskstate.wait(task.id, timeout=20)
    assert task.status == "ERROR"
    site.go()
    wait_until(
        "nothing is open", lambda: all(state != "RUNNING" for _, state, _ in site.executions(task.id)), timeout=20
    )


def test_worker_lost_between_publishing_and_recording_ends_as_error(site: Site) -> None:
    worker = site.worker()
    task = site.taskstate.start(work(site, "publishes_and_kills_the_worker", str(site.folder)))
    wait_until("the worker is dead", lambda: worker.status != "running", timeout=20)

    task = site.taskstate.wait(task.id, timeout=20)
    assert task.status == "ERROR"


def test_child_lost_after_its_success_was_stored_is_a_success(site: Site) -> None:
    site.worker()
    task = site.taskstate.start(work(site, "dies_after_success"))

    assert site.taskstate.wait(task.id, timeout=30).status == "SUCCESS"


def settled_state(site: Site, task_id: int, name: str) -> str:
    """Look for lost work until an execution is settled, and return its state."""

    def settled() -> str | None:
        site.taskstate.upkeep()
        found = {known: state for known, state, _ in site.executions(task_id)}[name]
        return found if found in {"SUCCESS", "LOST"} else None

    return str(wait_until("the loss is settled", settled, timeout=30, interval=0.2))


def test_worker_lost_after_its_success_was_stored_does_not_end_a_task_whose_next_member_waits(site: Site) -> None:
    worker = site.worker()
    chained = chain(work(site, "kills_the_worker_after_success"), work(site, "nothing_now"))
    task = site.taskstate.start(chained)
    wait_until("the worker is dead", lambda: worker.status != "running", timeout=20)

    state = settled_state(site, task.id, "kills_the_worker_after_success")

    # The second member waits in the queue. The worker may have lived long enough to say so; if not, nobody knows of it.
    assert status(task.id) == {"SUCCESS": "PENDING", "LOST": "ERROR"}[state]
    assert (worker.node_name in log(task.id)) is (state == "LOST")


def test_worker_lost_after_its_success_was_stored_is_a_success_if_nothing_follows(site: Site) -> None:
    worker = site.worker()
    task = site.taskstate.start(work(site, "kills_the_worker_after_success"))
    wait_until("the worker is dead", lambda: worker.status != "running", timeout=20)

    assert site.taskstate.wait(task.id, timeout=15).status == "SUCCESS"


def test_worker_lost_after_its_success_was_stored_is_a_success_if_what_follows_is_known(site: Site) -> None:
    first = site.worker()
    task = site.taskstate.start(chain(work(site, "kills_the_worker_after_success"), work(site, "nothing_now")))
    wait_until("the worker is dead", lambda: first.status != "running", timeout=20)
    site.worker()

    # The next member tells of itself when it begins; on a busy machine the loss may be settled before that.
    state = settled_state(site, task.id, "kills_the_worker_after_success")
    task = site.taskstate.wait(task.id, timeout=20)

    assert task.status == {"SUCCESS": "SUCCESS", "LOST": "ERROR"}[state]
    if state == "SUCCESS":
        assert [state for _, state, _ in site.executions(task.id)] == ["SUCCESS", "SUCCESS"]


def test_message_that_meets_its_hard_limit_every_time_is_given_up(site: Site) -> None:
    worker = site.worker()
    task = site.taskstate.start(work(site, "meets_its_limit", str(site.folder)))

    task = site.taskstate.wait(task.id, timeout=40)

    assert task.status == "ERROR"
    assert "is not tried again" in task.task_log
    assert len((site.folder / "begun").read_text().splitlines()) <= SOON["max_redeliveries"] + 2
    assert "could not be recorded" not in worker.logs()


def test_cold_shutdown_of_late_acknowledged_work_hands_it_back(site: Site) -> None:
    first = site.worker()
    task = site.taskstate.start(work(site, "waits_late", str(site.folder)))
    site.begun()
    first.kill("SIGQUIT")
    wait_until("the worker is gone", lambda: first.status != "running", timeout=20)
    assert status(task.id) == "PENDING"

    site.go()
    site.worker()
    assert site.taskstate.wait(task.id, timeout=30).status == "SUCCESS"
    assert site.executions(task.id) == [("waits_late", "SUCCESS", 0)]


def test_message_that_expired_in_a_queue_without_a_worker_ends_soon(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration, "_AFTER_EXPIRY_SECONDS", 1.0)
    alone = site.taskstate.start(work(site, "nothing"), expires=0.5)
    grouped = site.taskstate.start(group([work(site, "nothing")]), expires=0.5)
    later = site.taskstate.start(work(site, "nothing"), expires=600)

    for task in (alone, grouped):
        task = site.taskstate.wait(task.id, timeout=10)
        assert task.status == "ERROR"
        assert "expired in the queue" in task.task_log
    assert status(later.id) == "PENDING"


def test_child_lost_after_its_success_does_not_end_its_task_before_what_it_sent(site: Site) -> None:
    site.worker()
    task = site.taskstate.start(work(site, "spawns_and_dies_after_success", str(site.folder)))

    state = settled_state(site, task.id, "spawns_and_dies_after_success")

    # What it sent waits for `go`. If that is known by now, the task goes on; if not, nobody knows what is to come.
    assert status(task.id) == {"SUCCESS": "PENDING", "LOST": "ERROR"}[state]
    site.go()
    assert site.taskstate.wait(task.id, timeout=20).status == {"SUCCESS": "SUCCESS", "LOST": "ERROR"}[state]


def test_client_killed_in_the_middle_of_a_start_ends_the_task(site: Site) -> None:
    site.client("from tests.apps.crash import start_and_die; start_and_die(1000, 300)")
    task_id = 1
    site.worker(concurrency=2)

    task = site.taskstate.wait(task_id, timeout=30)

    assert task.status == "ERROR"
    assert "client died" in task.task_log
    assert "messages were seen" in task.task_log


def test_queued_work_whose_message_vanished_ends_at_its_deadline(site: Site) -> None:
    task = site.taskstate.start(work(site, "nothing"))
    site.app.control.purge()
    with site.taskstate.database.transaction() as connection:
        connection.execute(execution_table.update().values(deadline_at=execution_table.c.published_at))

    task = site.taskstate.wait(task.id, timeout=15)

    assert task.status == "ERROR"
    assert "deadline" in task.task_log
