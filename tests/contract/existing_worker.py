"""The app of a worker whose tasks are tracked by their names."""

from __future__ import annotations

import os

from celery import Celery

from qhana_taskstate import TaskState
from tests.apps import existing

app = Celery("existing", broker=os.environ["CELERY_BROKER_URL"], include=["tests.apps.existing"])
existing.add_tasks(app)
# Which tasks, and the database, are in the environment.
taskstate = TaskState(app, environment=os.environ)
