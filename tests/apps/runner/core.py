"""What all of it shares: Celery in the context of the Flask app, the database with its naming convention."""

from __future__ import annotations

from typing import Any

from celery import Celery, Task
from flask import Flask
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import MetaData


class ContextTask(Task):  # type: ignore[type-arg]  # Celery's class takes type arguments at runtime only since 5.7
    """Runs each task in a context of the Flask app."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it."""
        with CELERY.flask_app.app_context():
            return self.run(*args, **kwargs)


CELERY: Any = Celery("runner", flask_app=None, task_cls=ContextTask)

DB: Any = SQLAlchemy(
    metadata=MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "ix": "ix_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(column_0_name)s",
        }
    )
)

MIGRATE = Migrate()


def register(app: Flask) -> None:
    """Hand the configuration of an app on."""
    CELERY.conf.update(app.config.get("CELERY", {}), beat_schedule={})
    CELERY.flask_app = app
    DB.init_app(app)
    MIGRATE.init_app(app, DB)
