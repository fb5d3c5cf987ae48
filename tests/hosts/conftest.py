"""The fixtures of the apps in this process."""

from __future__ import annotations

from tests.contract.conftest import eager, empty_database_url, make_state, queued

__all__ = ["eager", "empty_database_url", "make_state", "queued"]
