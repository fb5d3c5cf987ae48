"""What `install` puts in the place of the runner's models, tasks and signals, in one process and without a broker."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from celery import Celery
from flask import Flask
from sqlalchemy import ForeignKey, MetaData, Table, event
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.pool import StaticPool

from qhana_taskstate import HostModelsError, registry
from qhana_taskstate.qhana import call, classes, helpers, replacing
from qhana_taskstate.qhana import save_task_result as ours
from tests.apps.runner import core, listeners, plugins, routes, tasks
from tests.apps.runner import models as runner_models
from tests.qhana.conftest import MakeRunner
from tests.waiting import wait_until

#: Ours have taken their place, which a type checker cannot know.
models: Any = runner_models


@pytest.fixture
def runner(make_runner: MakeRunner, taskstate_database_url: str) -> Flask:
    """The app, eager, with its tables."""
    app = make_runner(taskstate_database_url, celery={"task_always_eager": True})
    core.DB.create_all()
    return app


@pytest.fixture(autouse=True)
def not_eager_afterwards() -> Iterator[None]:
    """Leave the app of this process as it was."""
    yield
    core.CELERY.conf.task_always_eager = False


@pytest.fixture
def heard() -> Iterator[list[tuple[str, int]]]:
    """What a receiver of the host's own hears of each of its signals."""
    found: list[tuple[str, int]] = []

    def hear(name: str) -> Any:
        return lambda app, *, task_id, **_: found.append((name, task_id))

    signals = {
        "status": tasks.TASK_STATUS_CHANGED,
        "steps": tasks.TASK_STEPS_CHANGED,
        "details": tasks.TASK_DETAILS_CHANGED,
    }
    receivers = {name: hear(name) for name in signals}
    for name, receiver in receivers.items():
        signals[name].connect(receiver)
    yield found
    for name, receiver in receivers.items():
        signals[name].disconnect(receiver)


@pytest.fixture
def called() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """An address, and the queries that it was called with; the runner's calls have no body."""
    queries: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            queries.append({name: values[-1] for name, values in parse_qs(urlsplit(self.path).query).items()})
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", queries
        server.shutdown()


def _read(task: Any) -> Any:
    core.DB.session.rollback()
    return plugins.load(task.id)


def _step(task: Any, step_id: str = "one", **values: Any) -> None:
    tasks.add_step.s("a line", db_id=task.id, step_id=step_id, **plugins.URLS, **values).apply_async()


def test_result_ends_a_task_once_and_tells_the_hosts_receivers(runner: Flask, heard: list[tuple[str, int]]) -> None:
    task = routes.new()
    _step(task)
    assert sorted(name for name, _ in heard) == ["details", "steps"]
    heard.clear()

    tasks.save_task_result.s({"a": 1}, db_id=task.id).apply_async()
    assert sorted(heard) == [("details", task.id), ("status", task.id), ("steps", task.id)]
    heard.clear()
    tasks.save_task_error.s("unknown", db_id=task.id).apply_async()
    tasks.save_task_result.s("again", db_id=task.id).apply_async()
    _step(task, "late")

    found = _read(task)
    assert (found.status, found.task_log) == ("SUCCESS", 'a line\n{"a": 1}')
    assert [step.cleared for step in found.steps] == [True]
    assert heard == []


def test_two_results_at_once_end_a_task_once(
    runner: Flask, heard: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = routes.new()
    read = models.ProcessingTask.get_by_id

    def read_before_the_other_ends_it(id_: Any) -> Any:
        found = read(id_)
        if found is not None and not found.is_finished:
            monkeypatch.setattr(models.ProcessingTask, "get_by_id", read)
            registry.get().finish(task.id, log="the first")
        return found

    monkeypatch.setattr(models.ProcessingTask, "get_by_id", read_before_the_other_ends_it)
    tasks.save_task_result.s("the second", db_id=task.id).apply_async()

    assert (_read(task).status, _read(task).task_log) == ("SUCCESS", "the first")
    assert heard == []


def test_error_handler_ends_what_was_not_tracked(runner: Flask, heard: list[tuple[str, int]]) -> None:
    task = routes.new()
    tasks.save_task_error.s("unknown", db_id=task.id).apply_async()

    found = _read(task)
    assert (found.status, found.task_log) == ("FAILURE", "unknown failed: its cause was not stored")
    assert sorted(heard) == [("details", task.id), ("status", task.id)]


def test_result_as_an_error_handler_ends_nothing_well(runner: Flask) -> None:
    task = routes.new()
    canvas = plugins.fail.s(db_id=task.id)
    canvas.link_error(tasks.save_task_result.s(db_id=task.id))
    canvas.apply_async()

    found = _read(task)
    assert (found.status, found.task_log) == ("FAILURE", f"plugins.fail failed: LookupError: nothing for {task.id}")


def test_step_shows_its_progress(runner: Flask) -> None:
    task = routes.new()
    _step(task)
    _step(task)  # once more, as after a webhook that comes twice
    assert [step.step_id for step in _read(task).steps] == ["one"]
    assert (_read(task).progress_value, _read(task).progress_target) == (0, 1)
    _read(task).clear_previous_step(commit=True)
    _step(task, "two", prog_value=66)
    found = _read(task)
    assert (found.progress_value, found.progress_target, found.progress_unit) == (66, 100, "%")
    with pytest.raises(KeyError, match="no ProcessingTask"):
        tasks.save_task_result.run(None, 999)


def test_task_that_is_used_before_its_app_is_final_has_our_body() -> None:
    app: Any = Celery("host", set_as_current=False)
    declare: Callable[..., Callable[[Any], Any]] = app.task

    @declare(name="qhana-plugin-runner.add-step", bind=True, shared=False)
    def made(self: Any) -> None:
        """The host's own."""

    @declare(name="qhana-plugin-runner.save-error", bind=True, shared=False)
    def declared(self: Any) -> None:
        """The host's own."""

    assert made.name
    replacing.replace_tasks(app)
    replacing.replace_tasks(app)

    @declare(name="qhana-plugin-runner.save-result", bind=True, shared=False)
    def late(self: Any) -> None:
        """The host's own."""

    @declare(name="host.call_webhook", bind=True, shared=False, autoretry_for=(ConnectionError,))
    def caller(self: Any, webhook_url: str, task_url: str, event_type: str) -> None:
        """The host's own."""

    assert made.run.__func__ is helpers.add_a_step
    assert (declared.run.__func__, declared.runs_after_end) == (helpers.save_an_error, True)
    assert late.run.__func__ is helpers.save_a_result
    assert caller._orig_run.__func__.func is call.call_webhook
    assert not app.finalized


def test_names_of_the_package_are_the_hosts_tasks(runner: Flask) -> None:
    assert ours.name == tasks.save_task_result.name
    assert ours.run == tasks.save_task_result.run


@pytest.mark.parametrize("webhooks", [True, False])
def test_subscriber_is_told_by_one_sender(
    make_runner: MakeRunner, taskstate_database_url: str, called: tuple[str, list[dict[str, str]]], webhooks: bool
) -> None:
    href, queries = called
    make_runner(taskstate_database_url, celery={"task_always_eager": True}, webhooks=webhooks)
    core.DB.create_all()
    task = routes.new()
    models.TaskUpdateSubscription(task, webhook_href=href, task_href="http://t/1", event_type="status").save(
        commit=True
    )
    tasks.save_task_result.s("done", db_id=task.id).apply_async()
    wait_until("it is told", lambda: queries)
    by_host = {} if webhooks else {"by": "host"}
    assert queries == [{"source": "http://t/1", "event": "status", **by_host}]


def test_call_of_a_webhook_is_ours(runner: Flask, called: tuple[str, list[dict[str, str]]]) -> None:
    href, queries = called
    listeners.call_webhook.s(webhook_url=href, task_url="http://t/1", event_type="steps").apply_async()
    assert queries == [{"source": "http://t/1", "event": "steps"}]


def test_engine_in_memory_keeps_its_tables_and_install_may_be_repeated(make_runner: MakeRunner) -> None:
    for _ in range(2):
        app = make_runner("sqlite://", celery={"task_always_eager": True})
        assert isinstance(core.DB.engine.pool, StaticPool)
        disposed: list[object] = []
        event.listen(core.DB.engine, "engine_disposed", disposed.append)
        core.DB.create_all()
        task = routes.new(parameters="world")
        (plugins.hello.s(db_id=task.id) | tasks.save_task_result.s(db_id=task.id)).apply_async()
        assert (_read(task).status, _read(task).task_log.splitlines()[-1]) == ("SUCCESS", "hello world")
        registry.get().close()
        assert disposed == []
        assert registry.get().flask_app is app


def test_models_that_are_bound_already_are_refused() -> None:
    class Host(DeclarativeBase):
        metadata = MetaData()

    class ProcessingTask(Host):
        __tablename__ = "ProcessingTask"
        id: Mapped[int] = mapped_column(primary_key=True)

    class Bound(Host):
        __tablename__ = "Bound"
        id: Mapped[int] = mapped_column(primary_key=True)
        task_id: Mapped[int] = mapped_column(ForeignKey("ProcessingTask.id"))
        task: Mapped[ProcessingTask] = relationship(ProcessingTask)

    Host.registry.configure()
    with pytest.raises(HostModelsError, match="Bound is bound"):
        classes.take_over(Host.registry, Host.metadata)


def test_foreign_keys_and_texts_lead_to_ours() -> None:
    class Host(DeclarativeBase):
        metadata = MetaData()

    class Kept(Host):
        __tablename__ = "Kept"
        id: Mapped[int] = mapped_column(primary_key=True)
        task_id: Mapped[int] = mapped_column(ForeignKey("ProcessingTask.id"))
        task: Mapped[Any] = relationship("ProcessingTask")

    Table("ProcessingTask", Host.metadata, *[column._copy() for column in Kept.__table__.c if column.name == "id"])
    for _ in range(2):
        classes.take_over(Host.registry, Host.metadata)
    Host.registry.configure(cascade=True)
    assert Kept.task.property.mapper.class_ is models.ProcessingTask
    (key,) = Kept.__table__.foreign_keys
    assert key.column.table is models.ProcessingTask.__table__
