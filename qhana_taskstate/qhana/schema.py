"""The tables of the host and ours agree, whoever makes or drops them: `create_all`, Flask-Migrate, or our upgrade."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, Connection, MetaData, PrimaryKeyConstraint, String, Table, event, inspect

from ..database import schema
from . import migrations

#: Where metadata notes that it is listened to.
_LISTENED = "qhana_taskstate_listened"


def listen(metadata: MetaData) -> None:
    """Note the versions of the tables when all of the host's metadata is made or dropped. Twice is once.

    The table of our version becomes one of the host's metadata, so that it is dropped with the others.
    """
    if metadata.info.get(_LISTENED):
        return
    metadata.info[_LISTENED] = True
    name = schema.VERSION_TABLE
    if name not in metadata.tables:
        key = PrimaryKeyConstraint("version_num", name=f"{name}_pkc")
        Table(name, metadata, Column("version_num", String(32), nullable=False), key)
    event.listen(metadata, "after_create", _after_create)
    event.listen(metadata, "after_drop", _after_drop)


def _after_create(metadata: MetaData, connection: Connection, tables: Sequence[Table] = (), **_: Any) -> None:
    made = {table.name for table in tables}
    if schema.VERSION_TABLE in made:
        schema.adopt(connection)
    if made >= {table.name for table in metadata.tables.values()}:
        migrations.stamp(connection, "heads")


def _after_drop(metadata: MetaData, connection: Connection, **_: Any) -> None:
    left = set(inspect(connection).get_table_names())
    if left.isdisjoint(table.name for table in metadata.tables.values()):
        migrations.stamp(connection, "base")
