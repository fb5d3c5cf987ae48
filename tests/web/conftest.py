"""A Flask application with the blueprint, on the test's database; its tasks run where they are started."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from qhana_taskstate import TaskState
from qhana_taskstate.web import task_blueprint
from tests.apps.factory import close_state, make_app

MakeClient = Callable[..., FlaskClient]


def everybody() -> bool:
    """Let everybody in."""
    return True


@pytest.fixture
def state(migrated_database_url: str) -> Iterator[TaskState]:
    """A `TaskState` whose tasks run where they are started; webhooks may go to the host `backend`."""
    app, made = make_app(
        "memory://",
        "cache+memory://",
        migrated_database_url,
        webhook_allowed_networks=["backend"],
        # What is sent about a subscription waits in memory.
        flush_interval_seconds=0.1,
    )
    app.conf.task_always_eager = True
    app.set_current()
    yield made
    close_state(made)


@pytest.fixture
def make_client(state: TaskState) -> MakeClient:
    """Make a client of an application with the blueprint: `make_client(may_change=..., url_prefix="/jobs")`."""

    def make(*, url_prefix: str | None = None, **options: Any) -> FlaskClient:
        web = Flask(__name__)
        web.testing = True
        options = {"may_read": everybody, "may_change": everybody, **options}
        web.register_blueprint(task_blueprint(state, **options), url_prefix=url_prefix)
        return web.test_client()

    return make


@pytest.fixture
def client(make_client: MakeClient) -> FlaskClient:
    """A client that may do everything."""
    return make_client()
