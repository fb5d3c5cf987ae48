"""Behind PgBouncer in transaction mode, where each transaction may be on another connection to the server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Integer, bindparam, text

from qhana_taskstate import ProcessingTask, TaskState
from qhana_taskstate.database.engine import Database
from qhana_taskstate.database.scripts.statement import Statement
from qhana_taskstate.liveness.advisory_lock import Voucher, held
from qhana_taskstate.store.script import Script
from qhana_taskstate.testing.fixtures.missing_servers import serve
from qhana_taskstate.testing.postgres_server import PostgresServer
from tests.apps import jobs
from tests.apps.factory import close_state, make_app
from tests.pgbouncer import PgBouncer

pytestmark = pytest.mark.databases("postgresql")

#: Connections to the server that all clients of a database share.
POOLED = 2

Clients = Callable[[], Database]


@pytest.fixture(scope="module")
def small_pgbouncer(postgres_server: PostgresServer) -> Iterator[PgBouncer]:
    """A PgBouncer that soon gives a client another connection."""
    yield from serve(PgBouncer(postgres_server, pool_size=POOLED))


@pytest.fixture
def pooled_url(small_pgbouncer: PgBouncer, migrated_database_url: str) -> str:
    """URL of a database with the tables, through PgBouncer."""
    return small_pgbouncer.through(migrated_database_url)


@pytest.fixture
def client(pooled_url: str) -> Iterator[Clients]:
    """Make clients of that database, each with connections of its own to PgBouncer."""
    made: list[Database] = []

    def make() -> Database:
        made.append(Database(pooled_url))
        return made[-1]

    yield make
    for database in made:
        database.dispose()


def with_number(sql: str) -> Any:
    return text(sql).bindparams(bindparam("n", type_=Integer()))


TWICE, THRICE = with_number("SELECT CAST(:n AS INTEGER) * 2"), with_number("SELECT CAST(:n AS INTEGER) * 3")
ADD = with_number("INSERT INTO number (n) VALUES (:n) RETURNING n")


def tell(statement: Any, n: int) -> Statement:
    return Statement(statement, {"n": n}, name=str(n))


def script(*statements: Statement, at_once: bool = False, rest: bool = False) -> Script[Any]:
    def told(answers: Any) -> list[Any]:
        return [row[0] for answer in answers.values() for row in answer.rows]

    return Script(
        statements=statements,
        conclude=(lambda _: None) if rest else told,
        rest=lambda _, answers: told(answers),
        at_once=at_once,
    )


@pytest.mark.parametrize("at_once", [False, True])
def test_statement_of_one_client_is_never_taken_for_that_of_another(client: Clients, at_once: bool) -> None:
    one, other, holder = client(), client(), client()
    assert script(tell(TWICE, 5), at_once=at_once).run(one) == [10]
    with holder.transaction() as connection:
        connection.exec_driver_sql("SELECT 1")
        # The first connection to the server is taken now. On the second, the other client comes first.
        assert script(tell(THRICE, 5), at_once=at_once).run(other) == [15]
        assert script(tell(TWICE, 5), at_once=at_once).run(one) == [10]
        assert script(tell(THRICE, 5), tell(TWICE, 6), at_once=at_once).run(one) == [15, 12]
    assert script(tell(TWICE, 5), tell(THRICE, 6), at_once=at_once).run(other) == [10, 18]


def test_what_is_begun_on_another_connection_to_the_server_is_committed_there(client: Clients) -> None:
    one, other, holder = client(), client(), client()
    with holder.transaction() as connection:
        connection.exec_driver_sql("CREATE TABLE number (n INTEGER)")
    assert script(tell(ADD, 1)).run(one) == [1]
    with holder.transaction() as connection:
        connection.exec_driver_sql("SELECT 1")
        # The first connection to the server is taken now. On the second, this client's statements become known.
        assert script(tell(ADD, 2), rest=True).run(other) == [2]
        assert script(tell(ADD, 3)).run(one) == [3]
    with holder.reading() as connection:
        found = connection.exec_driver_sql("SELECT n FROM number ORDER BY n").scalars().all()
    assert found == [1, 2, 3]


def test_no_advisory_lock_is_left_with_a_connection_that_others_use_next(client: Clients) -> None:
    database, key = client(), 4711
    voucher = Voucher()
    voucher.stand_first(database, key)

    assert voucher.connection is None
    with database.reading() as connection:
        assert held(connection, {key}) == set()


def test_settings_of_a_transaction_are_not_met_by_the_next_one(client: Clients) -> None:
    def settings(connection: Connection) -> tuple[Any, ...]:
        names = ("lock_timeout", "statement_timeout", "default_transaction_isolation", "search_path")
        return tuple(connection.exec_driver_sql(f"SHOW {name}").scalar_one() for name in names)

    with client().reading() as connection:
        before = settings(connection)
    state = client()
    with state.transaction() as connection:
        from_lock = text("SELECT set_config('lock_timeout', '200ms', true)")
        connection.execute(from_lock)
    with client().reading() as connection:
        assert settings(connection) == before


@pytest.fixture
def state(pooled_url: str) -> Iterator[TaskState]:
    """A `TaskState` behind PgBouncer, whose tasks run where they are started."""
    app, made = make_app(
        "memory://",
        "cache+memory://",
        pooled_url,
        webhook_allowed_networks=["backend"],
        public_url="http://tasks.example",
        flush_interval_seconds=0.1,
    )
    app.conf.task_always_eager = True
    app.set_current()
    yield made
    close_state(made)


def test_many_clients_track_their_tasks_on_few_connections(state: TaskState) -> None:
    def track(number: int) -> tuple[str, list[str]]:
        task = state.start(jobs.say.s(), task_name=f"task {number}", webhook_href="http://backend/")
        found = ProcessingTask.get_by_id(task.id)
        assert found is not None
        return str(found.task_status), [str(one) for one in found.task_log.splitlines()]

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(track, range(64)))

    assert {status for status, _ in found} == {"SUCCESS"}
    assert len({tuple(lines) for _, lines in found}) == 1
    state.upkeep(force=True)
    # The subscribers have still to be told.
    assert state.prune(timedelta(0)).pending == 64
