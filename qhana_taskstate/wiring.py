"""Makes the parts of one `TaskState`, and joins them: who calls whom, and what Celery is asked for them."""

from __future__ import annotations

import atexit
import functools
import logging
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from celery import Celery
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, scoped_session

from .broker import doctor_task, kept_messages, revoking
from .broker.lost_messages import Broker
from .broker.redelivery import redelivery_seconds
from .broker.results import stored_success
from .database import schema
from .database.engine import Database
from .database.explain import explain
from .database.sessions import django_host
from .database.sessions.scopes import Sessions
from .errors import SettingsError
from .plugin.reporting import log_capture
from .plugin.task_class import PluginTask
from .recording.execution_recorder import ExecutionRecorder
from .recording.upkeep_part import UpkeepPart
from .settings.configuration import configured
from .settings.sources import read_settings
from .settings.values import FIELDS, PREFIX, Settings
from .tracking import selection
from .upkeep.pruning import OutputsHook, Pruner
from .upkeep.round import Upkeep
from .webhooks.deliverer import Deliverer
from .webhooks.waking import wake_message
from .webhooks.waking.sender import Sender
from .webhooks.waking.wake_message import Waker

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What the application hands to a `TaskState`, see there, and the class that its plugin tasks have."""

    keywords: Mapping[str, Any]
    session: scoped_session[Any] | Callable[[], Session] | None
    engine: Engine | None
    environment: Mapping[str, str] | None
    on_outputs_removed: OutputsHook | None
    task_class: type[PluginTask]


class Parts:
    """The parts of one `TaskState` that serve it until it is closed.

    Args:
        app: The Celery app.
        given: What the application handed in.
        sender: Sends the messages that wake the deliveries.

    Attributes:
        app: The Celery app.
        settings: The settings.
        task_class: The class of plugin tasks.
        database: The database.
        sessions: Where the current session comes from.
        pruner: Removes old tasks.
        upkeep: Finds what was lost.
        recorder: Records facts.
        waker: Wakes the deliveries.
        deliverer: Tells subscribers.
    """

    def __init__(self, app: Celery, given: Given, sender: Sender) -> None:
        self.app = app
        self._sender = sender
        self.settings = _read_settings(app, given)
        self.database = _database(self.settings, _engine(given, self.settings))
        capture_log(self.settings)
        self.task_class = given.task_class
        selection.select(app, self.settings.track, self.task_class)
        self.pruner = Pruner(self.database, self.settings, given.on_outputs_removed)
        self.upkeep = Upkeep(
            self.database,
            self.settings,
            redelivery_seconds=redelivery_seconds(app),
            stored_success=functools.partial(stored_success, app),
            revoke=functools.partial(revoking.revoke, app),
            finder=Broker(app),
            send=functools.partial(kept_messages.send_again, app),
            pruner=self.pruner,
        )
        self.sessions = Sessions(self.database, self.settings, given.session)
        self.sessions.explain = functools.partial(explain, self.database)
        upkeep_part = UpkeepPart(
            turn=self.upkeep.tick,
            interval_seconds=self.upkeep.interval_seconds,
            redelivery=self.upkeep.redelivery,
            give_up=self.upkeep.settler.give_up_poison,
            settle_own=self.upkeep.settler.settle_own,
        )
        self.recorder = ExecutionRecorder(self.database, self.sessions, self.settings, upkeep_part)
        self.waker = Waker(app, self.settings, sender, self.recorder)
        self.deliverer = Deliverer(self.database, self.recorder.write, self.settings, self.waker.send)
        self.recorder.wake_deliveries = self.deliverer.wake
        self.upkeep.wake_deliveries = self.deliverer.wake_if_owed
        self.waker.run = self.deliverer.run
        self.database.announce = self.waker.after_commit
        atexit.register(self.waker.at_exit)
        # Called before the one above: what is written last may owe somebody something.
        atexit.register(self.recorder.leave)

    def leave(self) -> None:
        """Write what waits for the database, and send what is owed, before this process ends."""
        self.recorder.leave()
        self.waker.at_exit()

    def close(self) -> None:
        """End what they do in this process; what waits to be written or delivered goes first, for a few seconds."""
        self.leave()
        for farewell in (self.recorder.leave, self.waker.at_exit):
            atexit.unregister(farewell)
        if not self.sessions.hosted:
            self.sessions.current.close()
        self._sender.close()
        self.deliverer.close()
        self.recorder.stop()


#: The apps that have our tasks.
_registered: weakref.WeakSet[Celery] = weakref.WeakSet()


def register_tasks(app: Celery) -> None:
    """Make our own Celery tasks some of an app's: what tells subscribers, and what the doctor probes with.

    Twice is once: an application factory may be called several times in a process, and Celery warns of a second task
    of the same name (celery 5.7).
    """
    if app in _registered:
        return
    _registered.add(app)

    wake_message.register(app)
    doctor_task.register(app)


def select_tasks(app: Celery, given: Given) -> None:
    """Let tasks be tracked without the decorator, as soon as the app is finalised and before one of them runs.

    Wrong settings are an error at first use.
    """
    try:
        selection.select(app, _read_settings(app, given).track, given.task_class)
    except SettingsError:
        logger.debug("the tasks to track are not known yet", exc_info=True)


def capture_log(settings: Settings) -> None:
    """Let records of the `logging` module go into the logs of tasks, if the setting asks for it; twice is once."""
    if settings.capture_log_level is not None:
        log_capture.install()


def _read_settings(app: Celery, given: Given) -> Settings:
    # Until something is looked up, `app.conf` is a promise of the configuration, without parts (celery 5.5 to 5.7).
    app.conf.get(PREFIX)
    namespace: str | None = app.namespace  # type: ignore[attr-defined]  # not in the stubs
    return read_settings(given.keywords, configured(app.conf.maps or (), namespace), given.environment, namespace)


def changed_settings(app: Celery, given: Given, settings: Settings) -> list[str]:
    """Name the settings that would have another value if they were read again now.

    Raises:
        SettingsError: If one is unknown or makes no sense.
    """
    anew = _read_settings(app, given)
    return [PREFIX + name for name in FIELDS if getattr(anew, name) != getattr(settings, name)]


def _database(settings: Settings, engine: Engine | None) -> Database:
    """Make the database: in Django's test environment the one for tests, if the settings name one."""
    if engine is not None or settings.test_database_url is None or not django_host.runs_tests():
        return Database(settings.database_url, engine=engine)
    database = Database(settings.test_database_url)
    if database.dialect == "sqlite" and database.file is None:
        schema.upgrade(database)
    return database


def _engine(given: Given, settings: Settings) -> Engine | None:
    """Return the host's engine, None where ours is made of the URL."""
    host = given.session
    if given.engine is not None or host is None or settings.database_url != Settings().database_url:
        return given.engine
    try:
        bind = host().get_bind()
    except (RuntimeError, SQLAlchemyError) as exc:
        found = _only_engine_of_flask(host)
        if found is None:
            raise SettingsError(
                "with session= our own threads have to know where to connect to, and there is no application context "
                "to ask in; make the Flask app first, or pass engine=, or set taskstate_database_url"
            ) from exc
        return found
    return bind if isinstance(bind, Engine) else bind.engine


def _only_engine_of_flask(session: Any) -> Engine | None:
    """Return the default engine of the one Flask app that a Flask-SQLAlchemy serves, None if there is not one app.

    A worker begins tasks before anybody enters an application context. Flask-SQLAlchemy keeps the engines of its apps
    where nobody asks for a context (3.0 and 3.1).
    """
    extension = getattr(getattr(session, "session_factory", None), "kw", {}).get("db")
    engines = [found.get(None) for found in dict(getattr(extension, "_app_engines", {})).values()]
    return engines[0] if len(engines) == 1 and isinstance(engines[0], Engine) else None
