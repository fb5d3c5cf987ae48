"""What runs below a local worker; pytest-celery copies this module to the worker as its `utils`."""

from __future__ import annotations

import json
import os

import psutil

#: Names the main process whose tree is looked at.
ROOT_VARIABLE = "LOCAL_CONTAINER_PID"


def get_running_processes_info(columns: list[str] | None = None) -> str:
    """Describe the processes of the worker, the main one first.

    Args:
        columns: Attributes of `psutil.Process`, default: what pytest-celery shows.

    Returns:
        JSON: a list of one object per process.
    """
    names = columns or ["pid", "name", "username", "cmdline", "cpu_percent", "memory_percent", "create_time"]
    root = psutil.Process(int(os.environ[ROOT_VARIABLE]))
    return json.dumps([process.as_dict(names) for process in [root, *root.children(recursive=True)]])
