"""Ids of rows: what the columns hold, and which one a number or a text names."""

from __future__ import annotations

from typing import Final

#: Largest id that the columns hold (INTEGER of PostgreSQL and MySQL).
LARGEST_ID: Final = 2**31 - 1

#: So many digits are no id, and not worth converting.
_TOO_LONG: Final = 20


def row_id(value: object) -> int | None:
    """Return the id that an int or a text of ASCII digits names, None for everything else."""
    if isinstance(value, str):
        value = int(value) if value.isascii() and value.isdigit() and len(value) < _TOO_LONG else None
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= LARGEST_ID else None
