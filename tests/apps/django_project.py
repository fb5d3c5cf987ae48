"""A project of Django in one file: settings, a model, and a Celery app. Run it with the name of a scene.

Its environment says where it keeps what: DJANGO_DATABASE and TASKSTATE_DATABASE_URL.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import django
from celery import Celery
from django.conf import settings
from django.core.management import call_command
from django.db import connection, models, transaction
from django.test import TestCase, TransactionTestCase
from django.test.utils import get_runner

import tests.apps as tests_apps
from qhana_taskstate import OwnTransactionError, TaskState, plugin_task, taskstate

settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["DJANGO_DATABASE"]}},
    USE_TZ=True,
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    CELERY_TASKSTATE_DATABASE_URL=os.environ["TASKSTATE_DATABASE_URL"],
    CELERY_BROKER_URL="memory://",
    CELERY_TASK_ALWAYS_EAGER=os.environ.get("EAGER") == "1",
    TEST_RUNNER="tests.apps.django_project.Runner",
)
django.setup()

app = Celery("shop")
app.config_from_object("django.conf:settings", namespace="CELERY")
TaskState(app)
app.set_current()


class Order(models.Model):  # type: ignore[misc]  # Django ships no types
    """What somebody has ordered."""

    name = models.TextField()

    class Meta:
        """Belongs to no installed app."""

        app_label = "shop"


@plugin_task(name="shop.ship")
def ship(order_id: int) -> str:
    """Send it; fails if it was not committed yet."""
    return f"shipped {Order.objects.get(pk=order_id).name}"


def make_tables() -> None:
    """Make the table of the orders."""
    with connection.schema_editor() as editor:
        editor.create_model(Order)


def commit() -> None:
    """Start work in transactions that are committed, rolled back, and not there."""
    taskstate.upgrade()
    make_tables()
    with transaction.atomic():
        order = Order.objects.create(name="books")
        with transaction.atomic():
            assert ship.start_on_commit(order.pk) is None
        assert taskstate.database.read(_count) == 0
    assert taskstate.database.read(_count) == 1
    try:
        with transaction.atomic():
            ship.start_on_commit(Order.objects.create(name="nothing").pk)
            raise RuntimeError
    except RuntimeError:
        pass
    assert taskstate.database.read(_count) == 1
    assert ship.start_on_commit(order.pk) is not None
    assert taskstate.start_on_commit(ship.s(order.pk), using="default", task_name="again") is not None
    assert taskstate.database.read(_count) == 3


def refuse() -> None:
    """Start work at once in a transaction that only reads, and in one that wrote, to the same file."""
    taskstate.upgrade()
    make_tables()
    with transaction.atomic():
        assert Order.objects.count() == 0
        assert ship.start(1).status in {"PENDING", "ERROR"}
    began = time.monotonic()
    with transaction.atomic():
        order = Order.objects.create(name="books")
        try:
            ship.start(order.pk)
        except OwnTransactionError as exc:
            print(exc)
        else:
            raise AssertionError("it was not refused")
        ship.delay(order.pk)
        ship.start_on_commit(order.pk)
    assert time.monotonic() - began < 5
    assert Order.objects.count() == 1
    assert taskstate.database.read(_count) == 2


def _count(opened: Any) -> int:
    return int(opened.exec_driver_sql('SELECT count(*) FROM "ProcessingTask"').scalar())


class InTransaction(TestCase):  # type: ignore[misc]  # Django ships no types
    """Django rolls each of these back."""

    def test_start_after_commit(self) -> None:
        """Work is started when Django pretends to commit."""
        with self.captureOnCommitCallbacks(execute=True):
            ship.start_on_commit(Order.objects.create(name="books").pk)
        assert taskstate.database.read(_count) >= 1

    def test_start(self) -> None:
        """Work can be started at once: the states are elsewhere."""
        assert ship.start(Order.objects.create(name="books").pk).task_log == "shipped books"


class WithCommits(TransactionTestCase):  # type: ignore[misc]  # Django ships no types
    """Django commits here."""

    def test_start_after_commit(self) -> None:
        """Work is started by the commit."""
        with transaction.atomic():
            ship.start_on_commit(Order.objects.create(name="books").pk)
        assert taskstate.database.read(_count) >= 1


class Runner(get_runner(settings, "django.test.runner.DiscoverRunner")):  # type: ignore[misc]  # made at run time
    """Makes the table of the orders, which belongs to no installed app, in the test's database."""

    def setup_databases(self, **options: Any) -> Any:
        """Make it after the others."""
        found = super().setup_databases(**options)
        make_tables()
        return found


def tests() -> None:
    """Do what `manage.py test` does."""
    call_command("test", "tests.apps.django_project", verbosity=0)


if __name__ == "__main__":
    # Under the name by which Django imports it again.
    tests_apps.django_project = sys.modules["__main__"]
    sys.modules["tests.apps.django_project"] = sys.modules["__main__"]
    {"commit": commit, "refuse": refuse, "tests": tests}[sys.argv[1]]()
