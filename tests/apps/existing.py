"""Tasks of a project that knows nothing of task states."""

from __future__ import annotations

from typing import Any

from celery import Celery, Task, shared_task


@shared_task(name="reports.shared")
def shared(text: str = "shared") -> str:
    """Return a text."""
    return text


@shared_task(name="reports.ping")
def ping() -> str:
    """Return a text."""
    return "pong"


@shared_task(name="reports.bind", bind=True)
def bound_task(self: Any, text: str) -> str:
    """Tell the number of the attempt."""
    return f"{text} {self.request.retries}"


@shared_task(name="reports.flaky", bind=True, autoretry_for=(ConnectionError,), retry_kwargs={"countdown": 0})
def flaky(self: Any) -> str:
    """Succeed at the third attempt."""
    if self.request.retries < 2:
        raise ConnectionError("not yet")
    return f"attempt {self.request.retries}"


@shared_task(name="reports.hopeless", autoretry_for=(ConnectionError,), max_retries=1, retry_kwargs={"countdown": 0})
def hopeless() -> None:
    """Fail each time."""
    raise ConnectionError("never")


@shared_task(name="reports.with_id")
def with_id(text: str, db_id: Any) -> str:
    """Take the id of a task, as plugins do."""
    return f"{text} {db_id}"


@shared_task(name="reports.parent")
def parent() -> str:
    """Send another task."""
    return str(shared.delay("child").id)


@shared_task(name="mails.send")
def send_mail() -> None:
    """Do nothing."""


class Counted(Task):  # type: ignore[type-arg]  # takes type arguments at runtime only since celery 5.7
    """A task class with its own call."""

    name = "reports.class"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Surround the body, as context tasks do."""
        return f"<{super().__call__(*args, **kwargs)}>"

    def run(self, number: int = 1, deep: bool = False) -> str:
        """Tell a number; may call itself."""
        return self.run(number + 1) if deep else f"{self.name} {number}"


def add_tasks(app: Celery) -> None:
    """Add the tasks that are made for one app: of a function, and of a class."""
    app.task(name="reports.app_task")(_square)
    app.register_task(Counted())


def _square(number: int) -> str:
    return str(number * number)
