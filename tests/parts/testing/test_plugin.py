"""The pytest plugin: what a run with it does, seen from outside."""

from __future__ import annotations

import subprocess
import sys

# Here, since an inner run forgets what it was the first to import, and Alembic does not work when it is imported twice.
import alembic.command  # noqa: F401
import pytest

from qhana_taskstate.testing import MariaDBServer, PostgresServer, RabbitMQServer, RedisServer, ServerMissingError
from qhana_taskstate.testing.server import LocalServer

SERVERS: dict[str, type[LocalServer]] = {
    "redis_server": RedisServer,
    "postgres_server": PostgresServer,
    "mariadb_server": MariaDBServer,
    "rabbitmq_server": RabbitMQServer,
}


@pytest.fixture
def run(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project of its own that loads the plugin as its README says."""
    pytester.makeconftest('pytest_plugins = ("qhana_taskstate.testing.plugin",)')
    return pytester


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without any server."""

    def refuse(self: LocalServer, timeout: float | None = None) -> None:
        raise ServerMissingError(f"there is no {self.kind}; install it")

    monkeypatch.setattr(LocalServer, "start", refuse)


@pytest.mark.usefixtures("nothing_installed")
class TestMissingServer:
    @pytest.mark.parametrize("fixture", SERVERS)
    def test_it_skips_with_a_reason_on_a_developers_machine(
        self, run: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, fixture: str
    ) -> None:
        monkeypatch.delenv("CI", raising=False)
        run.makepyfile(f"def test_it({fixture}): pass")

        result = run.runpytest_inprocess("-rs")

        result.assert_outcomes(skipped=1)
        result.stdout.fnmatch_lines([f"*there is no {SERVERS[fixture].kind}; install it*"])

    @pytest.mark.parametrize("fixture", [*SERVERS, "default_redis_broker", "default_rabbitmq_broker"])
    def test_it_fails_in_ci(self, run: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, fixture: str) -> None:
        monkeypatch.setenv("CI", "true")
        run.makepyfile(f"def test_it({fixture}): pass")

        result = run.runpytest_inprocess()

        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines(["*install it (a failure, since CI is set)*"])

    def test_a_server_that_the_test_starts_itself_is_treated_alike(
        self, run: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run.makepyfile(
            """
            from qhana_taskstate.testing import RabbitMQServer

            def test_it():
                with RabbitMQServer():
                    pass
            """
        )
        monkeypatch.delenv("CI", raising=False)
        run.runpytest_inprocess().assert_outcomes(skipped=1)
        monkeypatch.setenv("CI", "true")
        run.runpytest_inprocess().assert_outcomes(failed=1)


#: Kinds of databases for a run inside a test: those that come with Python packages, and the one that may be missing.
EACH_KIND = pytest.mark.parametrize("kinds", ["sqlite,postgresql", "mariadb"])


def check_all_passed(run: pytest.Pytester, kinds: str, each: int) -> None:
    """Run the inner tests; skipped as a whole if they are, because a server is missing."""
    outcomes = run.runpytest_inprocess("-rs", f"--taskstate-databases={kinds}").parseoutcomes()
    if outcomes.get("skipped"):
        pytest.skip(f"the server of {kinds} is missing")
    assert outcomes == {"passed": each * len(kinds.split(","))}


class TestDatabases:
    def test_a_test_runs_once_for_each_kind(self, run: pytest.Pytester) -> None:
        run.makepyfile(
            """
            def test_it(taskstate_database_url, database_kind):
                assert taskstate_database_url.startswith(database_kind)
            """
        )
        result = run.runpytest_inprocess("-v")
        result.assert_outcomes(passed=2)
        result.stdout.fnmatch_lines(["*test_it?sqlite?*", "*test_it?postgresql?*"])

    def test_the_option_chooses_the_kinds(self, run: pytest.Pytester) -> None:
        run.makepyfile("def test_it(taskstate_database_url): assert taskstate_database_url.startswith('sqlite')")
        run.runpytest_inprocess("--taskstate-databases=sqlite").assert_outcomes(passed=1)

    def test_markers_add_mariadb_or_choose_alone(self, run: pytest.Pytester) -> None:
        run.makepyfile(
            """
            import pytest

            @pytest.mark.mariadb
            def test_more(database_kind): pass

            @pytest.mark.databases("postgresql")
            def test_alone(database_kind): assert database_kind == "postgresql"
            """
        )
        result = run.runpytest_inprocess("-v", "--strict-markers")
        result.assert_outcomes(passed=4)
        result.stdout.fnmatch_lines(["*test_more?mariadb?*"])

    @pytest.mark.parametrize("options", [["--taskstate-databases=oracle"], []])
    def test_an_unknown_kind_is_named(self, run: pytest.Pytester, options: list[str]) -> None:
        run.makepyfile(
            """
            import pytest

            @pytest.mark.databases("oracle")
            def test_it(database_kind): pass
            """
        )
        result = run.runpytest_inprocess(*options)
        assert result.ret != 0
        assert "'oracle'; it takes sqlite, postgresql, mariadb" in result.stdout.str() + result.stderr.str()

    @EACH_KIND
    def test_each_test_has_an_empty_database(self, run: pytest.Pytester, kinds: str) -> None:
        run.makepyfile(
            """
            import pytest
            from sqlalchemy import create_engine, inspect, text
            from sqlalchemy.pool import NullPool

            @pytest.mark.parametrize("turn", [1, 2])
            def test_it(taskstate_database_url, turn):
                engine = create_engine(taskstate_database_url, poolclass=NullPool)
                assert inspect(engine).get_table_names() == []
                with engine.begin() as connection:
                    connection.execute(text("CREATE TABLE numbers (n INTEGER)"))
            """
        )
        check_all_passed(run, kinds, 2)

    @EACH_KIND
    def test_a_migrated_database_has_the_tables_and_the_same_url(self, run: pytest.Pytester, kinds: str) -> None:
        run.makepyfile(
            """
            import pytest
            from qhana_taskstate.database import schema
            from qhana_taskstate.database.engine import Database

            @pytest.mark.parametrize("turn", [1, 2])
            def test_it(migrated_database_url, taskstate_database_url, turn):
                assert migrated_database_url == taskstate_database_url
                database = Database(migrated_database_url)
                schema.check(database)
                database.dispose()
            """
        )
        check_all_passed(run, kinds, 2)

    @EACH_KIND
    def test_nothing_of_a_test_is_left_in_the_database_of_the_next_one(self, run: pytest.Pytester, kinds: str) -> None:
        run.makepyfile(
            """
            import pytest
            from sqlalchemy import create_engine, func, insert, inspect, select, text
            from sqlalchemy.exc import DBAPIError
            from sqlalchemy.pool import NullPool
            from qhana_taskstate import ProcessingTask

            CHANGES = ["CREATE TABLE more (n INTEGER)", "ALTER TABLE taskstate_hold ADD COLUMN more INTEGER"]
            left = []

            @pytest.mark.parametrize("change", [*CHANGES, "", "the last"])
            def test_it(migrated_database_url, change):
                for connection in left:
                    with pytest.raises(DBAPIError):
                        connection.execute(text("SELECT 1"))
                    connection.close()
                connection = create_engine(migrated_database_url, poolclass=NullPool).connect()
                assert "more" not in inspect(connection).get_table_names()
                assert "more" not in {column["name"] for column in inspect(connection).get_columns("taskstate_hold")}
                assert connection.execute(select(func.count()).select_from(ProcessingTask)).scalar_one() == 0
                added = connection.execute(insert(ProcessingTask).values(task_name="one", task_log=""))
                assert added.inserted_primary_key == (1,)
                if change and change != "the last":
                    connection.execute(text(change))
                connection.commit()
                if change != "the last" and not migrated_database_url.startswith("sqlite"):
                    left[:] = [connection]
                else:
                    connection.close()
            """
        )
        check_all_passed(run, kinds, 4)


class TestWorkers:
    def test_a_failure_shows_the_log_of_the_worker(self, run: pytest.Pytester) -> None:
        run.makepyfile(
            plain="from celery import Celery; app = Celery('plain')",
            test_it="""
            def test_it(start_worker):
                start_worker("plain:app", pool="solo")
                assert False
            """,
        )
        result = run.runpytest_inprocess()
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["*log of worker-*", "*ready.*"])

    def test_worker_and_command_line_get_the_database_of_the_test(self, run: pytest.Pytester) -> None:
        run.makepyfile(
            plain="""
            import os, sys
            from celery import Celery
            print("database", os.environ.get("TASKSTATE_DATABASE_URL"), file=sys.stderr)
            app = Celery("plain")
            """,
            test_it="""
            def test_with_database(start_worker, run_celery, taskstate_database_url):
                start_worker("plain:app", pool="solo").wait_for_log(f"database {taskstate_database_url}")
                done = run_celery("-A", "plain", "report")
                assert f"database {taskstate_database_url}" in done.stderr
                assert done.returncode == 0

            def test_without_database(run_celery):
                assert "database None" in run_celery("-A", "plain", "report").stderr
            """,
        )
        run.runpytest_inprocess("--taskstate-databases=sqlite").assert_outcomes(passed=2)

    def test_brokers_of_two_tests_are_apart(self, run: pytest.Pytester) -> None:
        run.makepyfile(
            """
            import pytest
            seen = set()

            @pytest.mark.parametrize("turn", [1, 2])
            def test_it(broker_url, result_backend_url, new_redis_url, turn):
                urls = {broker_url, result_backend_url, new_redis_url()}
                assert len(urls) == 3
                assert not urls & seen
                seen.update(urls)
            """
        )
        run.runpytest_inprocess().assert_outcomes(passed=2)


def test_the_servers_alone_need_no_pytest() -> None:
    script = "import sys, qhana_taskstate.testing; sys.exit(int(bool({'pytest', 'pytest_celery'} & set(sys.modules))))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
