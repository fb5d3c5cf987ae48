"""The plugin runner of QHAna on these task states: one call in its application factory."""

from __future__ import annotations

from .helpers import add_step, save_task_error, save_task_result
from .install import install
from .notices import TASK_DETAILS_CHANGED, TASK_STATUS_CHANGED, TASK_STEPS_CHANGED

__all__ = [
    "TASK_DETAILS_CHANGED",
    "TASK_STATUS_CHANGED",
    "TASK_STEPS_CHANGED",
    "add_step",
    "install",
    "save_task_error",
    "save_task_result",
]
