"""Receivers, and deployments whose webhooks may go to the loopback."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import delete

from qhana_taskstate import TaskState
from qhana_taskstate.database import schema
from qhana_taskstate.database.engine import Database
from qhana_taskstate.database.tables.deliveries import change_table, delivery_table, host_table
from qhana_taskstate.database.tables.runner import subscription_table
from qhana_taskstate.database.tables.upkeep import upkeep_table
from qhana_taskstate.testing.receiver import WebhookReceiver
from qhana_taskstate.testing.sql_server import SqlServer
from tests.apps.factory import close_state, make_app

SECRET = "whsec_" + base64.b64encode(b"the first secret of the receivers").decode()

#: What lets tests see in seconds what takes minutes or days.
SOON: dict[str, Any] = {
    "webhook_allowed_networks": ["127.0.0.0/8"],
    "webhook_secrets": [SECRET],
    "webhook_retry_schedule": [0.2, 0.3, 0.5, 0.5, 1, 1, 2, 2],
    "webhook_timeout_seconds": 2,
    "webhook_min_interval_seconds": 0.2,
    "flush_interval_seconds": 0.1,
}

MakeState = Callable[..., TaskState]


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    """A receiver that accepts everything that is signed."""
    with WebhookReceiver(secrets=[SECRET]) as running:
        yield running


@pytest.fixture(scope="session")
def _kept_urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, SqlServer | None], str]]:
    """Databases that many tests use one after the other: making one for each takes longer than they do."""
    urls: dict[str, str] = {}
    servers: dict[str, SqlServer] = {}

    def url_of(kind: str, server: SqlServer | None) -> str:
        if kind not in urls:
            if server is None:
                urls[kind] = f"sqlite:///{tmp_path_factory.mktemp('webhooks')}/taskstate.db"
            else:
                urls[kind] = server.create_database()
                servers[kind] = server
            database = Database(urls[kind])
            schema.upgrade(database)
            database.dispose()
        return urls[kind]

    yield url_of
    for kind, server in servers.items():
        if server.running:
            server.drop_database(urls[kind])


@pytest.fixture
def kept_database_url(
    database_kind: str, database_server: SqlServer | None, _kept_urls: Callable[[str, SqlServer | None], str]
) -> str:
    """URL of a database with our tables, in which other tests left tasks but nobody is subscribed or owed anything."""
    url = _kept_urls(database_kind, database_server)
    database = Database(url)
    with database.transaction() as connection:
        for table in (subscription_table, change_table, delivery_table, host_table, upkeep_table):
            connection.execute(delete(table))
    database.dispose()
    return url


def _do_nothing() -> None:
    """Wake nobody."""


@pytest.fixture
def make_state(kept_database_url: str) -> Iterator[MakeState]:
    """Make a `TaskState` whose messages stay in the memory of this process: nobody runs them.

    With `wakes=False` its commits do not even send the message that wakes the deliveries: no thread of it works then.
    """
    made: list[TaskState] = []

    def make(*, eager: bool = False, wakes: bool = True, broker: str = "memory://", **settings: Any) -> TaskState:
        app, state = make_app(broker, "cache+memory://", kept_database_url, **{**SOON, **settings})
        app.conf.task_always_eager = eager
        if not wakes:
            state.recorder.owe = _do_nothing  # type: ignore[method-assign]
        app.set_current()
        made.append(state)
        return state

    yield make
    for state in made:
        close_state(state)


@pytest.fixture
def state(make_state: MakeState) -> TaskState:
    """A `TaskState` that tells nobody unless `deliverer.run()` is called."""
    return make_state(wakes=False)
