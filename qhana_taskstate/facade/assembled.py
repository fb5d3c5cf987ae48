"""What a `TaskState` is made of: its app, its settings, its parts, its life in the process."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, Unpack

from celery import Celery, _state
from sqlalchemy import Engine
from sqlalchemy.orm import Session, scoped_session

from .. import registry
from ..errors import NotConfiguredError, SettingsError
from ..settings.keywords import SettingKeywords
from ..settings.values import PREFIX, Settings, setting_names
from . import late
from .plugin_task import StartablePluginTask
from .watching import watch

if TYPE_CHECKING:
    from ..database.engine import Database
    from ..database.sessions.scopes import Sessions
    from ..recording.execution_recorder import ExecutionRecorder
    from ..upkeep.pruning import OutputsHook
    from ..webhooks.deliverer import Deliverer
    from ..wiring import Parts

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound="Assembled")


def explained(call: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Let a method of `TaskState` say what is wrong with the database, rather than what its driver says."""

    @functools.wraps(call)
    def explained(state: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with state.sessions.explaining():
            return call(state, *args, **kwargs)

    return explained


logger = logging.getLogger(__name__)


class Assembled:
    """The parts of a `TaskState`, made from what that is given. Opens no connection before it is used.

    Raises:
        SettingsError: If a keyword names no setting. Values are checked at first use.
    """

    def __init__(
        self,
        app: Celery | None = None,
        *,
        session: scoped_session[Any] | Callable[[], Session] | None = None,
        engine: Engine | None = None,
        environment: Mapping[str, str] | None = None,
        on_outputs_removed: OutputsHook | None = None,
        **settings: Unpack[SettingKeywords],
    ) -> None:
        for name in settings:
            if name not in setting_names():
                raise SettingsError(f"unknown setting {name!r}; known are {', '.join(setting_names())}")
        self._app: Celery | None = None
        self._given = late.wiring.Given(
            keywords=settings,
            session=session,
            engine=engine,
            environment=environment,
            on_outputs_removed=on_outputs_removed,
            task_class=StartablePluginTask,
        )
        self._guard = threading.RLock()
        self._parts: Parts | None = None
        self._sender = late.sender.Sender()
        if app is not None:
            self.init_app(app)

    def __repr__(self) -> str:
        return f"<TaskState of {self._app.main if self._app is not None else None!r}>"

    def init_app(self, app: Celery) -> None:
        """Track the tasks of a Celery app, and make this the `TaskState` of the process for that app.

        May be called again, for example by an application factory; settings, session and engine are then looked up
        anew at the next use.
        """
        if self._app is not None:
            self.close()
        self._app = app
        registry.register(app, self, _state.get_current_app)
        late.wiring.register_tasks(app)
        late.signals.connect()
        app.on_after_finalize.connect(self._on_finalized, weak=False, dispatch_uid=f"qhana_taskstate.{id(self)}")
        app.on_after_configure.connect(self._on_configured, weak=False, dispatch_uid=f"qhana_taskstate.{id(self)}")
        if app.finalized:  # type: ignore[attr-defined]  # not in the stubs
            self._on_finalized(app)

    def _on_configured(self, sender: Celery, **_: Any) -> None:
        # Celery's configuration was read again, by `config_from_object` for example.
        if self._parts is not None and sender is self._app:
            watch(sender.conf, self, self._on_set)
            self._on_set(set(map(PREFIX.__add__, setting_names())))

    def _on_set(self, names: set[str]) -> None:
        """Say of settings that come too late that they do.

        Raises:
            SettingsError: If one is unknown or makes no sense.
        """
        parts, app = self._parts, self._app
        if parts is None or app is None:
            return
        changed = [name for name in late.wiring.changed_settings(app, self._given, parts.settings) if name in names]
        if changed:
            logger.warning(
                "%s came after the settings were first used, and changes nothing; configure the app before, or call "
                "`init_app` again",
                " and ".join(changed),
            )

    def _on_finalized(self, sender: Celery, **_: Any) -> None:
        if registry.find(sender) is self:
            late.wiring.select_tasks(sender, self._given)

    @property
    def app(self) -> Celery:
        """The Celery app.

        Raises:
            NotConfiguredError: Before `init_app`.
        """
        if self._app is None:
            raise NotConfiguredError("this TaskState has no Celery app yet; call taskstate.init_app(app)")
        return self._app

    @property
    def settings(self) -> Settings:
        """The settings, read at first use.

        Raises:
            SettingsError: If one is unknown or makes no sense.
        """
        return (self._parts or self.parts).settings

    @property
    def parts(self) -> Parts:
        """What does the work; made at first use."""
        if self._parts is None:
            with self._guard:
                if self._parts is None:
                    self._parts = late.wiring.Parts(self.app, self._given, self._sender)
                    watch(self.app.conf, self, self._on_set)
                    registry.hand_down(self, self._parts)
        return self._parts

    @property
    def recorder(self) -> ExecutionRecorder:
        """What records facts; made at first use."""
        return (self._parts or self.parts).recorder

    @property
    def deliverer(self) -> Deliverer:
        """What tells subscribers; made at first use."""
        return self.parts.deliverer

    @property
    def sessions(self) -> Sessions:
        """Where the current session comes from."""
        return self.parts.sessions

    @property
    def database(self) -> Database:
        """The database of the task states."""
        return self.parts.database

    @property
    def session(self) -> Session:
        """The current session: one an execution, web request, `with session_scope()`, or thread."""
        return self.sessions.current

    def session_scope(self) -> AbstractContextManager[Session]:
        """Give a block its own session: `with taskstate.session_scope() as session:`. Does not commit at its end."""
        return self.sessions.scope()

    def close(self) -> None:
        """End what this process does for it: its threads, and its connections.

        What waits to be written or delivered goes first, for a few seconds at most. No task may run here any more.
        Used again, it begins anew. A session or engine of the host is left alone.
        """
        if self._parts is not None:
            self._parts.close()
            # Last: the thread, and what is sent at the end, ask for the parts, and would make others.
            self._parts = None
            registry.hand_down(self, None)

    def leave(self) -> None:
        """Write what waits for the database, and send what is owed, before this process ends; makes no parts for it."""
        if self._parts is not None:
            self._parts.leave()

    def upgrade(self) -> None:
        """Bring the schema of the database up to date; safe to repeat, and twice at once.

        Raises:
            DatabaseUnavailableError: If the database cannot be reached.
        """
        late.schema.upgrade(self.database)
