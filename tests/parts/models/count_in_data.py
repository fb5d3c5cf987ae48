"""Run as a process of its own: count up one key of a task's data, a commit for each step."""

from __future__ import annotations

import sys

from qhana_taskstate.database.engine import Database
from qhana_taskstate.database.sessions.scopes import Sessions
from qhana_taskstate.models.task import ProcessingTask
from qhana_taskstate.settings.values import Settings

url, task_id, key, count = sys.argv[1:]
with Sessions(Database(url), Settings()).scope() as session:
    task = session.get_one(ProcessingTask, int(task_id))
    for _ in range(int(count)):
        numbers = task.data.setdefault("deep", {})
        numbers[key] = numbers.get(key, 0) + 1
        session.commit()
