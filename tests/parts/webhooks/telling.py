"""Deliverers of this process, run by hand, and what they leave in the database."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from sqlalchemy import Row, select, update

from qhana_taskstate import TaskState
from qhana_taskstate.database.dialects import database_time
from qhana_taskstate.database.sqlite import SQLITE_BUSY_SECONDS
from qhana_taskstate.database.tables.deliveries import delivery_table, host_table
from qhana_taskstate.events import TaskEvent
from qhana_taskstate.store.task import outbox
from qhana_taskstate.webhooks import views as webhooks_views
from qhana_taskstate.webhooks.views import DeliveryView
from tests.waiting import wait_until


def change(state: TaskState, task_id: int, *events: str, times: int = 1) -> None:
    """Owe events of a task, as every change does, `times` times in one transaction."""

    def work(connection: Any) -> None:
        outbox.lock(connection, task_id)
        for _ in range(times):
            outbox.add(connection, task_id, [TaskEvent(name) for name in events])

    # As patient as a session of a plugin, beside which deliverers write too.
    state.recorder.write(work, patience=SQLITE_BUSY_SECONDS)


def tell_until(state: TaskState, what: str, predicate: Callable[[], Any], *, timeout: float = 15) -> Any:
    """Run the deliveries again and again until the predicate is true."""

    def told() -> Any:
        state.deliverer.run()
        return predicate()

    return wait_until(what, told, timeout=timeout)


@contextmanager
def telling(*states: TaskState) -> Iterator[None]:
    """Let deliverers run, each in a thread, until the end of the block."""
    over = threading.Event()
    failures: list[Exception] = []

    def run(state: TaskState) -> None:
        while not over.is_set():
            try:
                state.deliverer.run()
            except Exception as exc:
                failures.append(exc)
                return
            over.wait(0.01)

    threads = [threading.Thread(target=run, args=(state,)) for state in states]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()
        if failures:
            # Also where the block failed: what it waited for in vain did not come because of these.
            raise ExceptionGroup("deliverers failed", failures)


def views(state: TaskState, **options: Any) -> list[DeliveryView]:
    """Return the deliveries as people see them."""
    return state.database.read(
        lambda connection: webhooks_views.views(connection, database_time(connection), **options)
    )


def delivery(state: TaskState, event: str = "details") -> Row[Any]:
    """Return the row of the only subscription for an event."""
    with state.database.reading() as connection:
        return connection.execute(select(delivery_table).where(delivery_table.c.event == event)).one()


def let_time_pass(state: TaskState, seconds: float) -> None:
    """Move all that waits for a moment so much closer to it."""
    with state.database.transaction() as connection:
        passed = timedelta(seconds=seconds)
        for row in connection.execute(select(delivery_table)).all():
            moved = {
                name: getattr(row, name) - passed
                for name in ("not_before", "due_at", "leased_until", "called_at")
                if getattr(row, name) is not None
            }
            if moved:
                connection.execute(update(delivery_table).where(delivery_table.c.id == row.id).values(moved))
        for host in connection.execute(select(host_table).where(host_table.c.closed_until.is_not(None))).all():
            connection.execute(
                update(host_table).where(host_table.c.name == host.name).values(closed_until=host.closed_until - passed)
            )
