"""The deployment of the demo: broker, database, worker and webhook receiver."""

from __future__ import annotations

import base64
import importlib
import json
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from celery import Celery
from kombu import Queue
from kombu.exceptions import KombuError
from kombu.utils.url import maybe_sanitize_url

from qhana_taskstate import taskstate
from qhana_taskstate.errors import TaskStateError
from qhana_taskstate.testing import LocalProcess, RedisServer
from qhana_taskstate.testing.receiver import WebhookReceiver
from qhana_taskstate.testing.server import free_port

from . import plugin
from .page import served

#: Seconds that the worker may take to end when its work is done.
_STOP_SECONDS = 5.0
#: Seconds after which results expire in a Redis that stays.
_RESULT_SECONDS = 3600


class DeploymentError(TaskStateError, RuntimeError):
    """The demo cannot run here; the message says what is missing."""


class Deployment:
    """The running parts.

    Attributes:
        broker: URL of the broker, without its password.
        database: URL of the database, without its password.
        worker: The process of the worker.
        receiver: Is told of the jobs; keeps only what is signed.
        page: Address of the page that shows them.
    """

    def __init__(
        self, *, broker: str, database: str, worker: LocalProcess, receiver: WebhookReceiver, page: str
    ) -> None:
        self.broker = broker
        self.database = database
        self.worker = worker
        self.receiver = receiver
        self.page = page

    def check(self) -> None:
        """Look whether the worker still runs.

        Raises:
            DeploymentError: If it ended; shows the end of its log.
        """
        code = self.worker.poll()
        if code is not None:
            log = self.worker.recent_logs()[-2000:].strip()
            raise DeploymentError(f"the worker ended with code {code}; its log ends with:\n{log}")


@contextmanager
def deployed(folder: Path, *, concurrency: int) -> Iterator[Deployment]:
    """Run broker, database, worker and receiver while the block runs; afterwards no process of them is left.

    The environment decides first: `CELERY_BROKER_URL`, `CELERY_RESULT_BACKEND`, `TASKSTATE_DATABASE_URL`,
    `TASKSTATE_WEBHOOK_SECRETS`. What it leaves open is a Redis of our own, an SQLite file in `folder`, and a new
    secret; the values are then put into the environment, from which `worker.py` reads them.

    Args:
        folder: Exists; for the database and the worker's log.
        concurrency: How many processes work on tasks.

    Raises:
        DeploymentError: If there is no fitting `worker.py` in the current folder.
        TaskStateError: If a server, the database or the broker cannot be had.
    """
    with ExitStack() as stack:
        own_broker = not os.environ.get("CELERY_BROKER_URL")
        broker = stack.enter_context(RedisServer()).url if own_broker else os.environ["CELERY_BROKER_URL"]
        os.environ["CELERY_BROKER_URL"] = broker
        _set_default("CELERY_RESULT_BACKEND", _result_backend(broker, folder))
        if not os.environ.get("TASKSTATE_DATABASE_URL_FILE"):
            _set_default("TASKSTATE_DATABASE_URL", f"sqlite:///{folder / 'taskstate.db'}")
        _let_webhooks_reach_us()
        port = free_port()
        _set_default("TASKSTATE_PUBLIC_URL", f"http://127.0.0.1:{port}")
        _set_default("TASKSTATE_WEB_FILES_ROOT", str(folder))
        app = _load_app()
        # On a broker that others use too, their messages are not taken and ours not given.
        app.conf.task_default_queue = queue = f"taskstate-demo-{secrets.token_hex(4)}"
        taskstate.upgrade()
        if not own_broker:
            stack.callback(_remove_queue, app, queue)
        if not taskstate.settings.webhook_secrets:
            raise DeploymentError("webhooks of the demo are signed, but taskstate_webhook_secrets holds no secret")
        receiver = stack.enter_context(WebhookReceiver(secrets=taskstate.settings.webhook_secrets))
        page = stack.enter_context(served(port))
        worker = LocalProcess(_worker_command(concurrency, queue), log_path=folder / "worker.log")
        worker.start()
        stack.callback(worker.close)
        yield Deployment(
            broker=maybe_sanitize_url(broker),
            database=taskstate.database.engine.url.render_as_string(hide_password=True),
            worker=worker,
            receiver=receiver,
            page=page,
        )
        worker.stop(_STOP_SECONDS)


def _set_default(name: str, value: str) -> None:
    if not os.environ.get(name):
        os.environ[name] = value


def _let_webhooks_reach_us() -> None:
    """Allow the loopback beside what is allowed, sign, and use the queue of the demo's own worker."""
    allowed = os.environ.get("TASKSTATE_WEBHOOK_ALLOWED_NETWORKS", "").strip()
    if allowed.startswith("["):
        allowed = ",".join(str(network) for network in json.loads(allowed))
    os.environ["TASKSTATE_WEBHOOK_ALLOWED_NETWORKS"] = f"{allowed},127.0.0.1" if allowed else "127.0.0.1"
    if not os.environ.get("TASKSTATE_WEBHOOK_SECRETS_FILE"):
        secret = base64.b64encode(secrets.token_bytes(32)).decode()
        _set_default("TASKSTATE_WEBHOOK_SECRETS", f"whsec_{secret}")
    os.environ.pop("TASKSTATE_WEBHOOK_QUEUE", None)


def _result_backend(broker: str, folder: Path) -> str:
    if broker.startswith(("redis://", "rediss://")):
        return broker
    # A chord needs a place for the results of its members. Other brokers are none.
    results = folder / "results"
    results.mkdir(exist_ok=True)
    return f"file://{results}"


def _load_app() -> Celery:
    try:
        module = importlib.import_module("worker")
    except ModuleNotFoundError as exc:
        if exc.name != "worker":
            raise
        raise DeploymentError("there is no worker.py here; run the demo from the root of the repository") from None
    app = getattr(module, "app", None)
    if not isinstance(app, Celery):
        raise DeploymentError(f"{module.__file__} has no Celery app named `app`")
    app.loader.import_default_modules()
    if plugin.read_entities.name not in app.tasks:
        raise DeploymentError(f"{module.__file__} does not include qhana_taskstate.demo.plugin")
    return app


def _worker_command(concurrency: int, queue: str) -> list[str]:
    return [
        *(sys.executable, "-m", "celery", "-A", "worker", "worker"),
        *("--pool", "prefork", "--concurrency", str(concurrency), "--loglevel", "INFO"),
        # It has no peers to get to know, and would wait a second for their answers.
        *("--without-gossip", "--without-mingle"),
        *("--", f"task.default_queue={queue}", f"result.expires={_RESULT_SECONDS}"),
    ]


def _remove_queue(app: Celery, queue: str) -> None:
    connection = app.connection_for_write()
    lost: tuple[Any, ...] = (KombuError, OSError, *connection.connection_errors, *connection.channel_errors)
    with suppress(*lost), connection:
        Queue(queue, channel=connection.default_channel).delete()
