"""django-celery-results: the result backend that Django projects use, on the same database."""

from __future__ import annotations

import os
from collections.abc import Callable

import django
from celery import Celery
from django.conf import settings
from django.core.management import call_command
from sqlalchemy import make_url

from benchmarks.contenders.configuration import configure

_url = make_url(os.environ["TASKSTATE_DATABASE_URL"])
settings.configure(
    INSTALLED_APPS=["django_celery_results"],
    USE_TZ=True,
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": _url.database,
            "USER": _url.username,
            "PASSWORD": _url.password,
            "HOST": _url.host or _url.query.get("host", ""),
            "PORT": _url.port or "",
            "CONN_MAX_AGE": None,
        }
    },
)
django.setup()

app = configure(Celery("django_results", broker=os.environ["CELERY_BROKER_URL"], backend="django-db"))
app.conf.update(task_track_started=True, result_extended=True)


@app.task(name="django_results.text")
def text() -> str:
    """Return a text."""
    return "done"


def _text(count: int) -> int:
    for _ in range(count):
        text.delay()
    return count


def prepare() -> None:
    """Migrate."""
    call_command("migrate", verbosity=0)


KINDS: dict[str, Callable[[int], int]] = {"usual": _text}
