"""No password and no webhook secret is seen anywhere, and arguments are in no table, whatever fails."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from celery import Celery, chain, chord, group, signature
from redis import Redis
from sqlalchemy import MetaData, Table, inspect, make_url, select

from qhana_taskstate import BrokerUnavailableError, DatabaseUnavailableError, SettingsError, TaskState
from qhana_taskstate.database.engine import Database
from qhana_taskstate.settings.values import Settings
from qhana_taskstate.testing.container import LocalWorker
from qhana_taskstate.testing.postgres_server import PostgresServer
from qhana_taskstate.testing.redis_server import RedisServer
from tests import warm
from tests.waiting import wait_until

#: Passwords with characters that stand quoted in a URL.
DATABASE_PASSWORD, BROKER_PASSWORD = "d4tabase/Pass@word", "br0ker/Pass@word"
WEBHOOK_SECRET = "whsec_" + base64.b64encode(b"webhook secret that is not seen").decode()
ARGUMENT = "4rgument-that-is-not-stored"

#: All the ways in which the secrets could be written.
SECRETS = [
    *(form for word in (DATABASE_PASSWORD, BROKER_PASSWORD) for form in (word, quote(word, safe=""), quote(word))),
    WEBHOOK_SECRET,
    WEBHOOK_SECRET.removeprefix("whsec_"),
    "webhook secret that is not seen",
]


def assert_no_secret(told: str) -> None:
    for secret in SECRETS:
        place = told.find(secret)
        assert place < 0, f"{secret!r} is seen: ...{told[max(0, place - 300) : place + 100]}..."


@dataclass
class Site:
    """A deployment with passwords everywhere."""

    redis: RedisServer
    postgres: PostgresServer
    app: Celery
    taskstate: TaskState
    worker: LocalWorker
    environment: dict[str, str]

    def work(self, name: str, *arguments: object, **keywords: object) -> Any:
        """Return a signature of one of the tasks."""
        return signature(f"tests.apps.secrets.{name}", args=arguments, kwargs=keywords, app=self.app, immutable=True)

    def command(self, *words: str) -> str:
        """Run a command and return all that it prints."""
        done = warm.run(
            [sys.executable, "-m", "celery", "-A", "tests.apps.secrets", "taskstate", *words],
            env={**os.environ, **self.environment},
            cwd=Path(__file__).resolve().parents[2],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        return str(done.stdout)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with RedisServer() as redis, PostgresServer() as postgres:
        Redis(port=redis.port).config_set("requirepass", BROKER_PASSWORD)
        database_url = make_url(postgres.create_database()).set(password=DATABASE_PASSWORD)
        broker_url = redis.url.replace("redis://", f"redis://:{quote(BROKER_PASSWORD, safe='')}@")
        environment = {
            "CELERY_BROKER_URL": broker_url,
            "CELERY_RESULT_BACKEND": broker_url.removesuffix("0") + "1",
            "TASKSTATE_DATABASE_URL": database_url.render_as_string(hide_password=False),
            "TASKSTATE_WEBHOOK_SECRETS": WEBHOOK_SECRET,
            "TASKSTATE_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
            "TASKSTATE_PUBLIC_URL": "http://tasks.test",
            "TASKSTATE_KEEP_FACTS_SECONDS": "2",
            "TASKSTATE_HEARTBEAT_SECONDS": "0.5",
            "TASKSTATE_LOST_AFTER_SECONDS": "2",
        }
        app = Celery("secrets", broker=broker_url, backend=environment["CELERY_RESULT_BACKEND"])
        app.conf.task_default_queue = "secrets"
        taskstate = TaskState(app, environment=environment)
        app.set_current()
        taskstate.upgrade()
        command = LocalWorker.command("-l", "DEBUG", application="tests.apps.secrets:app", concurrency=1)
        root = Path(__file__).resolve().parents[2]
        worker = LocalWorker(command, folder=tmp_path, env=dict(environment), cwd=root)
        worker.start()
        worker.ready()
        yield Site(redis, postgres, app, taskstate, worker, environment)
        worker.remove()
        taskstate.close()
        app.close()


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_no_secret_is_told_whatever_fails(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    told = [repr(site.taskstate), repr(site.taskstate.settings), repr(site.taskstate.database)]
    # Nobody listens there: a call that fails is noted too.
    options: dict[str, Any] = {"webhook_href": "http://127.0.0.1:1/hook?token=x", "event": "status"}
    good = site.taskstate.start(site.work("works", ARGUMENT), **options).id
    bad = site.taskstate.start(site.work("fails", ARGUMENT)).id
    for task_id in (good, bad):
        site.taskstate.wait(task_id, timeout=30)
    told += [json.dumps(site.taskstate.describe(task_id)) for task_id in (good, bad)]
    told += [site.command(*words) for words in (["list"], ["show", str(bad), "--traceback", "--json"], ["doctor"])]

    # The database goes away under a task, for longer than facts are kept.
    running = site.taskstate.start(site.work("works", ARGUMENT, 2.0)).id
    site.taskstate.session.close()
    wait_until("it runs", lambda: site.worker.logs().count("received") >= 3, timeout=20)
    site.postgres.stop()
    site.worker.wait_for_log("cannot be recorded, it waited", 30)
    with pytest.raises(DatabaseUnavailableError) as refused:
        site.taskstate.start(site.work("works", ARGUMENT))
    told += [str(refused.value), repr(refused.value), site.command("list"), site.command("doctor")]
    site.postgres.start()
    site.taskstate.session.rollback()
    site.taskstate.wait(running, timeout=30)

    # Redis comes back with another password, and then not at all.
    site.redis.restart()
    Redis(port=site.redis.port).config_set("requirepass", "another")
    told += [site.command("start", "tests.apps.secrets.works", "-p", "password=x"), site.command("doctor")]
    site.redis.stop()
    with pytest.raises(BrokerUnavailableError) as unsent:
        site.taskstate.start(site.work("works", ARGUMENT), retry=False)
    told += [str(unsent.value), repr(unsent.value)]
    told += [site.command("start", "tests.apps.secrets.works", "-p", "password=x"), site.command("doctor")]
    time.sleep(1)

    told += [site.worker.logs(), caplog.text, site.postgres.logs(), site.redis.logs()]
    assert all(told[:-3])
    for text_told in told:
        assert_no_secret(text_told)


@pytest.mark.timeout(120)
def test_arguments_are_in_no_table_and_errors_hold_no_traceback(site: Site) -> None:
    canvases = [
        site.work("works", ARGUMENT),
        site.work("works", password=ARGUMENT),
        site.work("fails", ARGUMENT),
        site.work("tries_again", ARGUMENT),
        chain(site.work("works", ARGUMENT), site.work("fails", ARGUMENT)),
        group([site.work("works", ARGUMENT), site.work("works", ARGUMENT)]),
        chord([site.work("works", ARGUMENT), site.work("works", ARGUMENT)], site.work("works", ARGUMENT)),
    ]
    task_ids = [site.taskstate.start(canvas).id for canvas in canvases]
    ended = [site.taskstate.wait(task_id, timeout=40) for task_id in task_ids]

    assert [task.status for task in ended].count("ERROR") == 3
    with site.taskstate.database.reading() as connection:
        for name in inspect(connection).get_table_names():
            table = Table(name, MetaData(), autoload_with=connection)
            for row in connection.execute(select(table)):
                assert ARGUMENT not in repr(row), name
    for task in ended:
        assert "Traceback" not in json.dumps(site.taskstate.describe(task.id))
        assert "Traceback" not in task.task_log


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql+psycopg://me:{DATABASE_PASSWORD}@127.0.0.1:1/db",
        f"postgresql+psycopg://me:{quote(DATABASE_PASSWORD, safe='')}@127.0.0.1:1/db",
        f"postgresql+psycopg://me@127.0.0.1:1/db?password={quote(DATABASE_PASSWORD, safe='')}",
        f"mysql+pymysql://me:{quote(DATABASE_PASSWORD, safe='')}@127.0.0.1:1/db",
    ],
)
def test_database_that_cannot_be_reached_is_named_without_its_password(url: str) -> None:
    database = Database(url)
    with pytest.raises(DatabaseUnavailableError) as refused, database.reading():
        pass

    assert_no_secret(f"{refused.value} {refused.value!r} {database!r} {database.name}")


def test_setting_that_makes_no_sense_is_named_without_its_value() -> None:
    for url in (DATABASE_PASSWORD, f"no-such-database://me:{DATABASE_PASSWORD}@h/db"):
        with pytest.raises(SettingsError) as refused:
            Database(url)
        # Nor by the cause, which a traceback shows.
        assert refused.value.__suppress_context__
        assert refused.value.__cause__ is None
        assert_no_secret(str(refused.value))
    assert_no_secret(repr(Settings(database_url=DATABASE_PASSWORD, webhook_secrets=(WEBHOOK_SECRET,))))
