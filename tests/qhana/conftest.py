"""The application of the shape of the plugin runner, in this process and in workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask

from qhana_taskstate import registry
from tests.apps.runner import core
from tests.apps.runner.factory import create_app

MakeRunner = Callable[..., Flask]


@pytest.fixture
def make_runner(taskstate_database_url: str) -> Iterator[MakeRunner]:
    """Make an app: `make_runner(database_url, celery={...}, **settings of install)`. Its context is entered."""
    # The database is asked for, since it has to outlive the app.
    contexts: list[Any] = []

    def make(url: str, *, celery: dict[str, Any] | None = None, **settings: Any) -> Flask:
        configured = {"broker_url": "memory://", "task_default_queue": "runner", **(celery or {})}
        app = create_app({"SQLALCHEMY_DATABASE_URI": url, "CELERY": configured}, environment=None, **settings)
        core.CELERY.set_current()
        context = app.app_context()
        context.push()
        contexts.append(context)
        return app

    yield make
    for context in reversed(contexts):
        # It gives back the session.
        context.pop()
        with context.app.app_context():
            core.DB.engine.dispose()
    state = registry.find(core.CELERY)
    if state is not None:
        state.close()
    # The app lives as long as its module; the next test has another broker.
    core.CELERY._pool = core.CELERY.amqp._producer_pool = None
