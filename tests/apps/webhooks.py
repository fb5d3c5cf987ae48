"""The app of workers that tell receivers on the loopback: everything else comes from the environment."""

from __future__ import annotations

import os

from tests.apps.factory import make_app
from tests.parts.webhooks.conftest import SOON

app, taskstate = make_app(
    os.environ["CELERY_BROKER_URL"],
    os.environ.get("CELERY_RESULT_BACKEND"),
    os.environ["TASKSTATE_DATABASE_URL"],
    environment=os.environ,
    **SOON,
)
