"""The table of who does the upkeep, and of what is to be done."""

from __future__ import annotations

from sqlalchemy import Column, String, Table

from .base import UtcTime, metadata

#: Who does the chores of upkeep now, so that one process at a time does them.
upkeep_table = Table(
    "taskstate_upkeep",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("owner", String(32), nullable=False),
    #: By the database's clock.
    Column("until", UtcTime, nullable=False),
)
