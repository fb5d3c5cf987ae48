"""Tells a progress that a plugin writes into the row of its task from that of a canvas, which may look the same."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection

from ...facts import Progress
from ...store.progress.canvas import is_of_canvas
from ...store.progress.own import mark_own

#: The columns that it consists of.
PROGRESS_COLUMNS: Final = ("progress_value", "progress_start", "progress_target", "progress_unit")


def note(connection: Connection, task: Any) -> None:
    """Mark the progress that a flush writes as the plugin's, if it could be taken for one of a canvas."""
    written = [getattr(task, name) for name in PROGRESS_COLUMNS]
    if None not in written and is_of_canvas(Progress(*written)):
        mark_own(connection, task.id)
