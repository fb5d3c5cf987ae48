"""Tasks that leave Celery's tracer in every way that there is: each by its name, from its body or from a hook."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from typing import Any

from billiard.pool import soft_timeout_sighandler
from celery import Celery, Task, shared_task
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded

from qhana_taskstate import TaskState, add_log, plugin_task, report_progress

app = Celery(
    "exits",
    broker=os.environ.get("CELERY_BROKER_URL"),
    backend=os.environ.get("CELERY_RESULT_BACKEND"),
)
app.conf.update(
    task_default_queue="exits",
    broker_connection_retry_on_startup=True,
    result_backend_max_retries=0,
    result_backend_transport_options={"retry_policy": {"max_retries": 0}},
    redis_socket_connect_timeout=1,
    broker_transport_options={"visibility_timeout": 3600},
)
taskstate = TaskState(app, environment=os.environ)


class BackendGoneError(ConnectionError):
    """What a result backend raises that went away."""


class HookError(Exception):
    """What a hook raises that is broken."""


def leave(task: Any, way: str) -> Any:
    """Leave the tracer in one way."""
    match way:
        case "return":
            return None
        case "raise":
            raise ValueError("the cause")
        case "raise with a broken connection":
            task.processing_task.data["written"] = True
            taskstate.session.flush()
            driver: Any = taskstate.session.connection().connection.driver_connection
            driver.close()
            raise ValueError("the cause")
        case "retry":
            raise task.retry(exc=ConnectionError("not yet"), countdown=0, max_retries=1)
        case "retry later":
            raise task.retry(exc=ConnectionError("not yet"), countdown=3, max_retries=1)
        case "ignore":
            raise Ignore()
        case "ignore as failed":
            task.update_state(state="FAILURE", meta={"exc_type": "ValueError", "exc_message": ["the cause"]})
            raise Ignore()
        case "reject":
            raise Reject("unwanted", requeue=False)
        case "requeue":
            raise Reject("not here", requeue=True)
        case "soft limit":
            raise SoftTimeLimitExceeded()
        case "cancel":
            raise asyncio.CancelledError("by the loop")
        case "interrupt":
            raise KeyboardInterrupt()
        case "exit":
            sys.exit(3)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "signal of a soft limit":
            if signal.getsignal(signal.SIGUSR1) is soft_timeout_sighandler:
                os.kill(os.getpid(), signal.SIGUSR1)
                time.sleep(0.1)
            else:
                raise SoftTimeLimitExceeded()
        case "sleep":
            time.sleep(60)
        case _:
            raise HookError(f"{way} in a hook")
    return None


class Hooked(Task):  # type: ignore[type-arg]  # generic in the stubs
    """Does in the hooks what the arguments say: `{"on_failure": "exit"}`; the body does what "body" says."""

    abstract = True

    def _hook(self, name: str, kwargs: dict[str, Any]) -> None:
        if name in kwargs:
            leave(self, kwargs[name])

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Do as told."""
        self._hook("before_start", kwargs)

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Do as told."""
        self._hook("on_success", kwargs)

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Do as told."""
        self._hook("on_failure", kwargs)

    def on_retry(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Do as told."""
        self._hook("on_retry", kwargs)

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Do as told."""
        self._hook("after_return", kwargs)

    @property  # type: ignore[misc]  # Celery's has a setter, which is not used here
    def backend(self) -> Any:
        """A result backend that is gone where the running execution says so."""
        word = (self.request.kwargs or {}).get("backend")
        return _Gone(super().backend, self, word) if word else super().backend


class _Gone:
    """A result backend that does what it is told instead of storing the end of a task."""

    def __init__(self, backend: Any, task: Any, word: str) -> None:
        self._backend, self._task, self._word = backend, task, word

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def mark_as_done(self, *_: Any, **__: Any) -> None:
        """Do as told."""
        if self._word == "gone":
            raise BackendGoneError("the result backend went away")
        leave(self._task, self._word)

    mark_as_failure = mark_as_retry = mark_as_done


@plugin_task(bind=True, base=Hooked)
def early(self: Any, /, body: str = "return", **hooks: str) -> Any:
    """Leave in the way that is told, acknowledged before."""
    return leave(self, body)


@plugin_task(bind=True, base=Hooked, acks_late=True)
def late(self: Any, /, body: str = "return", **hooks: str) -> Any:
    """Leave in the way that is told, acknowledged at the end."""
    return leave(self, body)


@shared_task(bind=True, base=Hooked)
def plain(self: Any, /, body: str = "return", **hooks: str) -> Any:
    """Leave in the way that is told; no plugin task."""
    return leave(self, body)


@plugin_task(bind=True, base=Hooked, soft_time_limit=1)
def softly(self: Any, /, body: str = "sleep", **hooks: str) -> Any:
    """Last longer than the soft limit."""
    return leave(self, body)


@plugin_task(bind=True, base=Hooked, time_limit=1)
def strictly(self: Any, /, body: str = "sleep", **hooks: str) -> Any:
    """Last longer than the hard limit."""
    return leave(self, body)


@plugin_task(soft_time_limit=1)
def near_its_limit(seconds: float) -> str:
    """End about when the soft limit strikes."""
    time.sleep(seconds)
    return "in time"


@plugin_task(bind=True, max_retries=1, default_retry_delay=0)
def struck(self: Any, /, strike: str, body: str = "return") -> str | None:
    """Log, report, and leave in the way that is told, while something strikes at a line of ours."""
    add_log("it ran")
    report_progress(50)
    leave(self, body)
    return "done"


if "INJECTION_LINES" in os.environ:
    from tests.exits.injection import Injector

    Injector().install()
