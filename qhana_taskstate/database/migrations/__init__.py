"""The migrations of the schema, in `versions`, and what runs them; Alembic is imported by what runs them alone."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import upgrade as upgrade


def __getattr__(name: str) -> Any:
    # Alembic takes as long to import as Celery, and most processes never migrate.
    if name == "upgrade":
        return importlib.import_module(f"{__name__}.upgrade")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
