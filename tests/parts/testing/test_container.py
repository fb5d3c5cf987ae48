"""The nodes of pytest-celery on local processes keep what its API promises."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery
from celery.result import AsyncResult
from pytest_celery import (
    CeleryBrokerCluster,
    CeleryTestContainer,
    CeleryTestSetup,
    CeleryTestWorker,
    CeleryWorkerCluster,
    CeleryWorkerContainer,
    RedisContainer,
    RedisTestBroker,
)
from pytest_celery.vendors.worker.tasks import add, ping
from pytest_docker_tools.exceptions import ContainerFailed
from pytest_docker_tools.exceptions import TimeoutError as WaitTimeoutError

from qhana_taskstate.testing.container import LocalRedis, LocalWorker
from qhana_taskstate.testing.plugin import StartWorker
from tests.waiting import wait_until

PLAIN = "tests.parts.testing.plain_app:app"


@pytest.fixture(autouse=True)
def few_objects() -> Iterator[None]:
    """Hide the objects of earlier tests from `gc.get_objects`.

    The nodes of pytest-celery 1.3 go through all of them at their teardown, which took seven seconds a test at the
    end of a whole run.
    """
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def plain(broker_url: str, result_backend_url: str) -> Celery:
    """The client's side of the plain app."""
    return Celery("client", broker=broker_url, backend=result_backend_url)


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


class TestSetup:
    """`celery_setup` and the clusters, with the app that pytest-celery generates."""

    def test_a_ping_travels_through_broker_worker_and_backend(self, celery_setup: CeleryTestSetup) -> None:
        assert celery_setup.ready(ping=True, control=True)
        assert len(celery_setup) == 3

    def test_the_tasks_of_pytest_celery_run(self, celery_setup: CeleryTestSetup) -> None:
        assert add.s(2, 3).apply_async(queue=celery_setup.worker.worker_queue).get(timeout=20) == 5
        celery_setup.worker.assert_log_exists("succeeded in")
        celery_setup.worker.assert_log_does_not_exist("no such line", timeout=0)

    def test_the_worker_answers_to_its_host_name(self, celery_setup: CeleryTestSetup) -> None:
        worker = celery_setup.worker
        inspect = celery_setup.app.control.inspect([worker.hostname()], timeout=2)
        # Asked again: a worker says that it is ready a moment before it listens to broadcasts, and what is sent in
        # between is lost (celery 5.7 with Redis).
        wait_until("the worker answers", lambda: worker.hostname() in (inspect.ping() or {}))
        assert worker.hostname() == worker.container.node_name

    def test_the_worker_knows_its_version_and_its_processes(self, celery_worker: CeleryTestWorker) -> None:
        assert celery_worker.version == CeleryWorkerContainer.version() or celery_worker.version[0].isdigit()
        pids = {row["pid"] for row in celery_worker.get_running_processes_info(["pid", "name"])}
        assert celery_worker.container.pid in pids
        assert set(celery_worker.container.child_pids()) <= pids

    def test_clusters_hold_local_nodes(
        self, celery_worker_cluster: CeleryWorkerCluster, celery_broker_cluster: CeleryBrokerCluster
    ) -> None:
        assert celery_broker_cluster.ready()
        assert celery_worker_cluster.ready()
        assert isinstance(celery_broker_cluster[0], RedisTestBroker)
        assert isinstance(celery_worker_cluster[0].container, CeleryTestContainer)
        assert celery_broker_cluster.config()["urls"] == celery_broker_cluster.config()["host_urls"]

    def test_a_restarted_broker_has_its_port_and_the_worker_finds_it_again(self, celery_setup: CeleryTestSetup) -> None:
        url = celery_setup.broker.config()["url"]

        celery_setup.broker.restart()

        assert celery_setup.broker.config()["url"] == url
        assert celery_setup.broker.ready()
        assert ping.s().apply_async(queue=celery_setup.worker.worker_queue).get(timeout=30) == "pong"

    @pytest.mark.parametrize("force", [False, True])
    def test_a_restarted_worker_works_again(self, celery_setup: CeleryTestSetup, force: bool) -> None:
        worker = celery_setup.worker
        pid = worker.container.pid

        worker.restart(force=force)

        assert worker.container.pid != pid
        assert worker.container.status == "running"
        assert celery_setup.ready(ping=True)
        assert worker.logs().count(" ready.") == 2

    def test_a_killed_worker_has_exited(self, celery_setup: CeleryTestSetup) -> None:
        celery_setup.worker.kill()

        assert celery_setup.worker.container.status == "exited"
        with pytest.raises(ContainerFailed, match="ended with code -9"):
            celery_setup.worker.ready()

    def test_teardown_leaves_no_process(self, celery_setup: CeleryTestSetup) -> None:
        containers = [celery_setup.worker.container, celery_setup.broker.container, celery_setup.backend.container]
        pids = [pid for container in containers for pid in container.tree_pids()]
        # The worker, its two children and two servers.
        assert len(pids) == 5

        for node in (celery_setup.worker, celery_setup.broker, celery_setup.backend):
            node.teardown()
            node.teardown()

        assert not [pid for pid in pids if alive(pid)]


class TestOverriddenSetup:
    """The fixtures that shape the worker can be overridden."""

    @pytest.fixture
    def default_worker_application(self) -> str:
        return PLAIN

    @pytest.fixture
    def default_worker_pool(self) -> str:
        return "threads"

    @pytest.fixture
    def default_worker_args(self) -> list[str]:
        return ["--max-tasks-per-child", "7"]

    def test_the_worker_runs_the_given_app_and_pool(self, celery_setup: CeleryTestSetup) -> None:
        task = celery_setup.app.send_task("tests.parts.testing.plain_app.pool_child")
        assert task.get(timeout=20) == celery_setup.worker.container.pid


class TestRabbitMQSetup:
    """RabbitMQ as broker, where a test asks for it."""

    @pytest.fixture
    def celery_broker_cluster(self, celery_rabbitmq_broker: object) -> CeleryBrokerCluster:
        return CeleryBrokerCluster(celery_rabbitmq_broker)

    def test_a_ping_travels_through_rabbitmq(self, celery_setup: CeleryTestSetup) -> None:
        assert celery_setup.broker.config()["url"].startswith("amqp://")
        assert celery_setup.ready(ping=True)


class TestRedisNode:
    def test_it_is_created_running_exited_and_removed(self) -> None:
        node = LocalRedis()
        assert node.status == "created"
        assert not node.ready()

        node.start()
        assert node.ready()
        assert node.status == "running"
        assert node.client.ping()
        assert node.attrs["State"]["Pid"] == node.pid

        node.kill()
        assert (node.status, node.exit_code) == ("exited", -signal.SIGKILL)

        node.remove()
        assert node.status == "removing"

    def test_it_is_one_for_pytest_celery(self, default_redis_broker: LocalRedis) -> None:
        assert isinstance(default_redis_broker, RedisContainer)
        assert default_redis_broker.celeryconfig["host_url"] == default_redis_broker.url
        assert default_redis_broker.get_addr(f"{default_redis_broker.port}/tcp") == (
            "127.0.0.1",
            default_redis_broker.port,
        )
        assert "Ready to accept connections" in default_redis_broker.logs()

    def test_its_data_survive_a_restart_unless_told(self, default_redis_broker: LocalRedis) -> None:
        with default_redis_broker.client as client:
            client.set("key", "value")
        default_redis_broker.restart()
        with default_redis_broker.client as client:
            assert client.get("key") == "value"
        default_redis_broker.restart(keep_data=False)
        with default_redis_broker.client as client:
            assert client.get("key") is None


class TestWorkerNode:
    def test_start_worker_returns_a_worker_that_is_ready(self, start_worker: StartWorker, plain: Celery) -> None:
        worker = start_worker(PLAIN)

        assert worker.status == "running"
        assert plain.send_task("tests.parts.testing.plain_app.ping").get(timeout=20) == "pong"

    @pytest.mark.parametrize("pool", ["prefork", "threads", "solo", "gevent"])
    def test_every_pool_runs_tasks(self, start_worker: StartWorker, plain: Celery, pool: str) -> None:
        worker = start_worker(PLAIN, pool=pool)
        pid = plain.send_task("tests.parts.testing.plain_app.pool_child").get(timeout=20)

        if pool == "prefork":
            assert pid in worker.child_pids()
            assert len(worker.child_pids()) == 2
        else:
            assert pid == worker.pid

    def test_the_environment_is_laid_over_ours(self, start_worker: StartWorker, plain: Celery, broker_url: str) -> None:
        start_worker(PLAIN, env={"SOME_NAME": "some value", "HOME": None})

        def variable(name: str) -> object:
            return plain.send_task("tests.parts.testing.plain_app.variable", (name,)).get(timeout=20)

        assert variable("SOME_NAME") == "some value"
        assert variable("HOME") is None
        assert variable("CELERY_BROKER_URL") == broker_url
        assert variable("TASKSTATE_DATABASE_URL") is None

    def test_a_killed_child_is_replaced(self, start_worker: StartWorker) -> None:
        worker = start_worker(PLAIN)
        before = worker.child_pids()

        killed = worker.kill_child()

        assert killed in before
        wait_until("a new child runs", lambda: len(worker.child_pids()) == 2 and killed not in worker.child_pids())
        assert worker.status == "running"

    def test_a_busy_child_dies_with_its_killed_worker(
        self, start_worker: StartWorker, plain: Celery, tmp_path: Path
    ) -> None:
        worker = start_worker(PLAIN)
        self.begin_sleep(plain, tmp_path)

        worker.kill()

        assert worker.status == "exited"
        # Pool children of Celery ask the kernel for it (PR_SET_PDEATHSIG, celery 5.7).
        wait_until("the child is gone", lambda: worker.tree_pids() == [], timeout=5)

    def test_what_a_task_started_outlives_its_killed_worker_until_the_tree_is_killed(
        self, start_worker: StartWorker, plain: Celery, tmp_path: Path
    ) -> None:
        worker = start_worker(PLAIN)
        child = self.begin_sleep(plain, tmp_path, "start_another")

        worker.kill()

        wait_until("only what the task started lives", lambda: worker.tree_pids() == [child])
        worker.kill_tree()
        assert not alive(child)

    def test_kill_tree_takes_worker_and_busy_children_at_once(
        self, start_worker: StartWorker, plain: Celery, tmp_path: Path
    ) -> None:
        worker = start_worker(PLAIN)
        child = self.begin_sleep(plain, tmp_path)

        worker.kill_tree()

        assert worker.tree_pids() == []
        assert not alive(child)

    def test_a_frozen_worker_is_paused_and_goes_on_when_thawed(self, start_worker: StartWorker, plain: Celery) -> None:
        worker = start_worker(PLAIN)

        worker.freeze()
        wait_until("it is paused", lambda: worker.status == "paused")
        result: AsyncResult[str] = plain.send_task("tests.parts.testing.plain_app.ping")
        assert not result.ready()
        worker.thaw()

        assert result.get(timeout=20) == "pong"

    def test_stop_is_a_warm_shutdown(self, start_worker: StartWorker, plain: Celery, tmp_path: Path) -> None:
        worker = start_worker(PLAIN)
        mark = tmp_path / "mark"
        result = plain.send_task("tests.parts.testing.plain_app.sleep", (0.5, str(mark)))
        wait_until("the task runs", lambda: mark.exists() and mark.read_text())

        assert worker.stop() == 0
        assert result.get(timeout=5) is None

    def test_a_worker_that_cannot_start_fails_with_its_log(self, start_worker: StartWorker) -> None:
        with pytest.raises(ContainerFailed, match=r"(?s)ended with code.*no_such_module"):
            start_worker("no_such_module")

    def test_wait_for_log_names_what_did_not_come(self, start_worker: StartWorker) -> None:
        worker = start_worker(PLAIN)
        worker.wait_for_log("ready.")
        with pytest.raises(AssertionError, match=r"'no such line' within 0\.1 s"):
            worker.wait_for_log("no such line", timeout=0.1)
        with pytest.raises(WaitTimeoutError):
            CeleryTestWorker(worker, None).wait_for_log("no such line", timeout=0)

    def test_exec_run_has_the_environment_of_the_worker(self, start_worker: StartWorker) -> None:
        worker = start_worker(PLAIN, env={"SOME_NAME": "some value"})
        assert worker.exec_run("python -c 'import os; print(os.environ[\"SOME_NAME\"])'") == (0, b"some value\n")
        assert worker.exec_run(["sh", "-c", "echo no >&2; exit 3"]) == (3, b"no\n")

    def test_a_worker_may_be_started_from_a_thread_that_ends(self, start_worker: StartWorker, plain: Celery) -> None:
        thread = threading.Thread(target=start_worker, args=(PLAIN,))
        thread.start()
        thread.join()

        assert plain.send_task("tests.parts.testing.plain_app.ping").get(timeout=20) == "pong"

    def test_it_runs_in_a_group_of_its_own(self, start_worker: StartWorker) -> None:
        worker = start_worker(PLAIN)
        assert os.getpgid(worker.pid) == worker.pid

    def test_a_debug_server_is_refused(self) -> None:
        with pytest.raises(NotImplementedError, match="attach a debugger"):
            LocalWorker.command(debugpy=True)

    @staticmethod
    def begin_sleep(plain: Celery, folder: Path, task: str = "sleep") -> int:
        """Start a task that sleeps for long. Returns the pid of the process that sleeps."""
        mark = folder / "mark"
        plain.send_task(f"tests.parts.testing.plain_app.{task}", (300, str(mark)))
        return int(wait_until("the task runs", lambda: mark.exists() and mark.read_text()))
