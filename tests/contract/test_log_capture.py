"""Capturing the log changes nothing about logging."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from qhana_taskstate import plugin_task
from qhana_taskstate.testing.plugin import StartWorker
from tests.contract.conftest import MakeState


@plugin_task(name="contract.logs_in_many_ways")
def logs_in_many_ways() -> None:
    """Log by way of loggers of every kind."""
    logging.getLogger("celery_plugins.one").warning("by its own logger")
    alone = logging.getLogger("stands.alone")
    alone.propagate = False
    alone.warning("without the root")
    logging.getLogger("qhana_taskstate").warning("of ours")
    logging.getLogger("stands.alone").debug("too low")


def state_of_logging() -> list[Any]:
    root = logging.getLogger()
    return [root.level, list(root.handlers), root.propagate, logging.lastResort, root.hasHandlers()]


@pytest.mark.databases("sqlite")
def test_capturing_leaves_logging_as_it_is(make_state: MakeState) -> None:
    before = state_of_logging()
    state = make_state(eager=True, capture_log_level="WARNING")
    task = state.start(logs_in_many_ways.s())

    assert state_of_logging() == before
    assert task.task_log.splitlines() == [
        "WARNING celery_plugins.one: by its own logger",
        "WARNING stands.alone: without the root",
    ]


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("level", [None, "ERROR"])
def test_level_of_the_task_state_whose_task_runs_counts(make_state: MakeState, level: str | None) -> None:
    make_state(eager=True, capture_log_level="WARNING").start(logs_in_many_ways.s())

    assert make_state(eager=True, capture_log_level=level).start(logs_in_many_ways.s()).task_log == ""


@pytest.mark.databases("sqlite")
def test_worker_that_leaves_the_root_logger_alone_logs_as_without_capture(
    start_worker: StartWorker, migrated_database_url: str
) -> None:
    worker = start_worker("tests.contract.hijack_worker:app", concurrency=1)

    assert "ready" in worker.logs()
