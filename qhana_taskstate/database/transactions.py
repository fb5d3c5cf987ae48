"""Tells the database that a transaction brought something to announce."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection

#: Where a connection notes that its open transaction is to be announced.
ANNOUNCED: Final = "taskstate_announced"


def announce_after_commit(connection: Connection) -> None:
    """Let the `Database` call its `announce` once the transaction that it opened on this connection is committed."""
    connection.info[ANNOUNCED] = True
