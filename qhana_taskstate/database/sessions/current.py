"""The current session, and the settings beside it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from sqlalchemy.orm import Session

from ... import registry
from ...settings.values import Settings
from .scopes import Sessions


def current_sessions() -> Sessions:
    """Return the `Sessions` of the process's `TaskState`.

    Raises:
        NotConfiguredError: If there is none.
    """
    parts = registry.parts() or registry.get().parts
    found: Sessions = parts.sessions
    return found


def explaining(session: Session) -> AbstractContextManager[None]:
    """Do as `Sessions.explaining` of the process's `TaskState`; nothing where there is none."""
    return nullcontext() if registry.find() is None else current_sessions().explaining(session)


def current_session() -> Session:
    """Return the current session.

    Raises:
        NotConfiguredError: If no `TaskState` was made in this process.
    """
    return current_sessions().current


def current_settings() -> Settings:
    """Return the settings of the process's `TaskState`, or the defaults where there is none."""
    parts = registry.parts()
    settings: Settings = _DEFAULTS if parts is None else parts.settings
    return settings


_DEFAULTS = Settings()
