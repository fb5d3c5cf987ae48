"""How connections to each kind of database are made, and which pooled ones are still good."""

from __future__ import annotations

import time
from functools import partial
from typing import Any, Final

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DisconnectionError, NoSuchModuleError
from sqlalchemy.pool import ConnectionPoolEntry

from ..errors import SettingsError
from .dialects import KINDS, kind_of
from .sqlite import begin, begin_before_savepoint, sqlite_connect

#: Where a pooled connection notes when it was given back.
_RETURNED: Final = "taskstate_returned"


#: How many connections of a pool may be open at once; SQLAlchemy's default.
_MOST_CONNECTIONS: Final = 15


#: A pooled connection that lay idle for more seconds is asked for a sign of life before it is used. Asking at each
#: use would cost a round trip, and a caller whose connection broke just now tries again anyway.
_IDLE_SECONDS: Final = 3.0


def make_engine(url: URL, name: str, *, kept: int | None) -> Engine:
    """Make an engine with what each kind of database needs.

    Args:
        url: Where it connects to.
        name: What messages call the database, without its password.
        kept: How many unused connections to a server it keeps; None for SQLAlchemy's default.

    Raises:
        SettingsError: If the driver is not installed.
    """
    backend = url.get_backend_name()
    try:
        # The values of a statement have no business in logs: they may be what a user said.
        engine = create_engine(url, hide_parameters=True, **_options(url, backend, kept))
    except (ImportError, NoSuchModuleError) as exc:
        known = KINDS.get(backend)
        hint = ""
        if known is not None and known.extra is not None:
            extra, driver = known.extra
            hint = f"; pip install 'qhana_taskstate[{extra}]' brings the one for {driver}://"
        raise SettingsError(f"the driver for {name} is not installed: {exc}{hint}") from exc
    prepare(engine)
    return engine


def _options(url: URL, backend: str, kept: int | None) -> dict[str, Any]:
    options: dict[str, Any] = {"connect_args": KINDS[backend].connect_args(url)} if backend in KINDS else {}
    if not kind_of(backend).one_writer:
        # READ COMMITTED: each statement sees what was committed before it, on which the look for open
        # executions relies; MariaDB's default would show the state of the transaction's first read.
        options.update(pool_recycle=1800, isolation_level="READ COMMITTED")
        if kept is not None:
            # More may be open for a moment, but they are not kept.
            options.update(pool_size=kept, max_overflow=_MOST_CONNECTIONS - kept)
    return options


def prepare(engine: Engine) -> None:
    """Let an engine, ours or the host's, ask idle connections for a sign of life, and lock SQLite as we need it."""
    if engine.dialect.name != "sqlite":
        if not event.contains(engine, "checkin", _note_checkin):
            event.listen(engine, "checkin", _note_checkin)
            event.listen(engine, "checkout", partial(_ask_if_idle, engine))
        return
    if event.contains(engine, "begin", begin):
        return
    event.listen(engine, "connect", sqlite_connect)
    event.listen(engine, "begin", begin)
    event.listen(engine, "savepoint", begin_before_savepoint)


def _note_checkin(connection: Any, record: ConnectionPoolEntry) -> None:
    record.info[_RETURNED] = time.monotonic()


def _ask_if_idle(engine: Engine, connection: Any, record: ConnectionPoolEntry, proxy: object) -> None:
    returned = record.info.get(_RETURNED)
    if returned is None or time.monotonic() - returned < _IDLE_SECONDS:
        return
    try:
        alive = engine.dialect.do_ping(connection)
    except engine.dialect.loaded_dbapi.Error:
        alive = False
    if not alive:
        raise DisconnectionError("the connection broke while it lay idle")
