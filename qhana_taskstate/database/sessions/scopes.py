"""The scope of a session: an execution, a web request, a block or a thread."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import ORMExecuteState, Session, scoped_session

from ...settings.values import Settings
from ..engine import Database
from .flask_scope import close_at_teardown
from .forked import disown_all, note_own
from .open_writes import has_open_write
from .own_locks import guard


class Scope:
    """A stretch of work that has a session of its own, made when it is first asked for.

    Args:
        sessions: The `Sessions` that makes it.
    """

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions
        self._session: Session | None = None

    @property
    def session(self) -> Session:
        """The session of this scope."""
        if self._session is None:
            self._session = self.sessions.new_session()
        return self._session

    @property
    def started(self) -> bool:
        """Whether anybody asked for the session yet."""
        return self._session is not None

    def close(self) -> None:
        """Roll back what was not committed and give the connection back."""
        if self._session is not None:
            self._session.close()
            self._session = None


_scope: ContextVar[Scope | None] = ContextVar("qhana_taskstate_scope", default=None)


class Sessions:
    """Finds the current session of one `TaskState`.

    Args:
        database: Where our own sessions connect to.
        settings: The settings of the same `TaskState`.
        host: The session of the host application: a `scoped_session`, or a callable that returns the session to
            use now. It is then the current session everywhere, and its life is the host's business.
    """

    def __init__(
        self,
        database: Database,
        settings: Settings,
        host: scoped_session[Any] | Callable[[], Session] | None = None,
    ) -> None:
        self.database = database
        self.settings = settings
        #: Returns what to raise where the database refused; set by `wiring`.
        self.explain: Callable[[DBAPIError], Exception] = lambda exc: exc
        self._host = host
        self._threads = threading.local()
        self._flask_key = f"qhana_taskstate_scope_{id(self)}"
        _known.add(self)

    @property
    def hosted(self) -> bool:
        """Whether the host handed in its own session."""
        return self._host is not None

    def new_session(self) -> Session:
        """Make a session of ours. It keeps loaded values after a commit; `get_by_id` reads anew."""
        session = Session(self.database.engine, expire_on_commit=False)
        guard(session, self.database)
        note_own(session)
        return session

    @property
    def current(self) -> Session:
        """The current session: of the host, else of the scope, web request, or thread."""
        host = self._host_here()
        return self._current_scope().session if host is None else host()

    def _host_here(self) -> Callable[[], Session] | None:
        return None if self._host is None or isinstance(_scope.get(), _Aside) else self._host

    @property
    def untouched(self) -> bool:
        """Whether nobody has asked for the current session yet, so that there is nothing in it."""
        scope = _scope.get()
        if self._host is None and scope is not None and scope.sessions is self:
            # Of every execution: without a further call.
            return scope._session is None
        return self._host_here() is None and not self._current_scope().started

    def open_write(self) -> bool:
        """Tell whether the current session may hold a write that was not committed."""
        session = self.opened()
        return session is not None and has_open_write(session)

    def opened(self) -> Session | None:
        """Return the current session if somebody has asked for it already."""
        host = self._host_here()
        if host is None:
            scope = self._current_scope()
            return scope.session if scope.started else None
        try:
            return host()
        except RuntimeError:
            # Flask-SQLAlchemy outside an application context: nobody has a session here.
            return None

    @contextmanager
    def explaining(self, session: Session | None = None) -> Iterator[None]:
        """Let what is done inside say what is wrong with the database, rather than what its driver says.

        Args:
            session: What it is done in, default: the current session. It is rolled back before something else is
                raised than the driver's error, unless it is the host's.

        Raises:
            SchemaError: If the tables are missing or too old.
            DatabaseUnavailableError: If the database cannot be reached.
        """
        try:
            yield
        except DBAPIError as exc:
            found = self.explain(exc)
            if found is exc:
                raise
            if not self.hosted:
                (session or self.current).rollback()
            raise found from exc

    def _current_scope(self) -> Scope:
        scope = _scope.get()
        if scope is not None and scope.sessions is self:
            return scope
        return self._request_scope() or self._thread_scope()

    def _request_scope(self) -> Scope | None:
        flask = sys.modules.get("flask")
        if flask is None or not flask.has_app_context():
            return None
        scope: Scope | None = flask.g.get(self._flask_key)
        if scope is None:
            scope = Scope(self)
            setattr(flask.g, self._flask_key, scope)
            close_at_teardown(flask, self._flask_key)
        return scope

    def _thread_scope(self) -> Scope:
        scope: Scope | None = getattr(self._threads, "scope", None)
        if scope is None:
            scope = self._threads.scope = _ThreadScope(self)
        return scope

    def forget_parent(self, abandoned: list[object]) -> None:
        """Leave the thread's session of the parent process alone, in a forked child."""
        abandoned.append(self._threads.__dict__.copy())
        self._threads = threading.local()

    @contextmanager
    def scope(self) -> Iterator[Session]:
        """Give the enclosed block a session of its own; closed, and so rolled back, at its end.

        Yields:
            The session (the host's own where the host handed one in).
        """
        if self._host is not None:
            yield self._host()
            return
        scope = Scope(self)
        token = _scope.set(scope)
        try:
            yield scope.session
        finally:
            _scope.reset(token)
            scope.close()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Let the block have a session of ours, also where the host handed one in: that one is busy."""
        scope = _Aside(self)
        token = _scope.set(scope)
        try:
            yield
        finally:
            _scope.reset(token)
            scope.close()

    def enter(self) -> Callable[[], None]:
        """Begin a scope that ends when the returned function is called, in the same thread.

        For callers that cannot use a `with` block, such as a pair of signal handlers.
        """
        scope = Scope(self)
        outer = _scope.get()
        _scope.set(scope)

        def leave() -> None:
            _scope.set(outer)
            scope.close()

        return leave


class _Aside(Scope):
    """A scope whose session goes before the host's."""


class _ThreadScope(Scope):
    """The scope of a thread outside of everything else: a read there leaves no transaction open."""

    @property
    def session(self) -> Session:
        fresh = not self.started
        session = super().session
        if fresh:
            event.listen(session, "do_orm_execute", _release_after_read)
        return session


def _release_after_read(state: ORMExecuteState) -> Any:
    session = state.session
    # A transaction that is open already belongs to somebody: to a write, to a lock, or to Core statements on its
    # connection, which no event of the session tells of.
    if not state.is_select or session.in_transaction() or _is_locking(state):
        return None
    frozen = state.invoke_statement().freeze()
    # All rows are in memory now; nothing keeps the transaction unless something was or will be written in it.
    if not has_open_write(session):
        session.commit()
    return frozen()


def _is_locking(state: ORMExecuteState) -> bool:
    return getattr(state.statement, "_for_update_arg", None) is not None


_known: weakref.WeakSet[Sessions] = weakref.WeakSet()


#: Scopes of a parent process; kept, since closing them would speak on the parent's sockets.
_abandoned: list[object] = []


def _forget_parent() -> None:
    _abandoned.extend(disown_all())
    _abandoned.append(_scope.get())
    _scope.set(None)
    for sessions in list(_known):
        sessions.forget_parent(_abandoned)


os.register_at_fork(after_in_child=_forget_parent)
