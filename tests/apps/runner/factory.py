"""The application factory, and in it the one line that is not the runner's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from flask import Flask

from qhana_taskstate.qhana import install

from . import core, listeners, models, tasks  # noqa: F401  (as the runner, which imports all of it early)

MIGRATIONS = Path(__file__).with_name("migrations")


def create_app(config: dict[str, Any] | None = None, **settings: Any) -> Flask:
    """Make the app.

    Args:
        config: Its configuration; by default from the environment.
        settings: Handed to `install`.
    """
    app = Flask("runner", instance_path="/nonexistent")
    app.config.update(from_environment() if config is None else config)
    core.register(app)
    core.MIGRATE.directory = str(MIGRATIONS)
    app.extensions["migrate"].directory = str(MIGRATIONS)
    install(app, core.CELERY, core.DB, **settings)
    listeners.register(app)
    # Plugins come last.
    from . import plugins  # noqa: F401

    return app


def from_environment() -> dict[str, Any]:
    """Return the configuration of a worker."""
    return {
        "SQLALCHEMY_DATABASE_URI": os.environ["RUNNER_DATABASE_URL"],
        "CELERY": {
            "broker_url": os.environ["RUNNER_BROKER_URL"],
            "result_backend": os.environ.get("RUNNER_RESULT_BACKEND"),
            "task_default_queue": "runner",
            "broker_connection_retry_on_startup": True,
        },
    }
