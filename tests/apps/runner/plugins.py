"""Plugins of the runner, each with one of its canvases. None knows of `qhana_taskstate`."""

from __future__ import annotations

from typing import Any

from .core import CELERY
from .models import ProcessingTask


@CELERY.task(name="plugins.hello", bind=True)
def hello(self: Any, db_id: int) -> str:
    """Greet."""
    task: Any = ProcessingTask.get_by_id(id_=db_id)  # type: ignore[attr-defined]
    return f"hello {task.parameters}"


@CELERY.task(name="plugins.fail")
def fail(db_id: int) -> str:
    """Fail."""
    raise LookupError(f"nothing for {db_id}")
