"""Celery's own result backend on SQLAlchemy, told to keep what it can: beginnings, names, arguments, workers."""

from __future__ import annotations

import os
from collections.abc import Callable

from celery import Celery

from benchmarks.contenders.configuration import configure

app = configure(
    Celery("celery_db", broker=os.environ["CELERY_BROKER_URL"], backend=f"db+{os.environ['TASKSTATE_DATABASE_URL']}")
)
app.conf.update(task_track_started=True, result_extended=True, database_create_tables_at_setup=True)


@app.task(name="celery_db.text")
def text() -> str:
    """Return a text."""
    return "done"


def _text(count: int) -> int:
    for _ in range(count):
        text.delay()
    return count


def prepare() -> None:
    """Let the backend make its tables."""
    app.backend.ResultSession().close()  # type: ignore[attr-defined]


KINDS: dict[str, Callable[[int], int]] = {"usual": _text}
