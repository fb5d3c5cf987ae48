"""The tables of a plugin runner as its own migrations leave them, and rows of all ages in them.

Written by hand from the facts about that database, and not from our migrations, which are tested against it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    TIMESTAMP,
    Boolean,
    Column,
    Connection,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    insert,
    null,
)

runner_metadata = MetaData()


def _belongs_to_task(table: str, column: str = "task_id") -> ForeignKeyConstraint:
    return ForeignKeyConstraint([column], ["ProcessingTask.id"], name=f"fk_{table}_{column}_ProcessingTask")


processing_task = Table(
    "ProcessingTask",
    runner_metadata,
    Column("id", Integer, nullable=False),
    Column("task_name", String(500)),
    Column("started_at", TIMESTAMP(timezone=True)),
    Column("finished_at", TIMESTAMP(timezone=True)),
    Column("parameters", Text),
    Column("data", JSON(none_as_null=False)),
    Column("multi_step", Boolean),
    Column("current_step", Integer),
    Column("progress_value", Float),
    Column("progress_start", Float),
    Column("progress_target", Float),
    Column("progress_unit", String(100)),
    Column("task_status", String(100)),
    Column("task_log", Text, nullable=False),
    PrimaryKeyConstraint("id", name="pk_ProcessingTask"),
)
step = Table(
    "Step",
    runner_metadata,
    Column("id", Integer, nullable=False),
    Column("step_id", String(500)),
    Column("number", Integer, nullable=False),
    Column("href", String(500)),
    Column("ui_href", String(500)),
    Column("cleared", Boolean),
    _belongs_to_task("Step", "id"),
    PrimaryKeyConstraint("id", "number", name="pk_Step"),
)
task_file = Table(
    "TaskFile",
    runner_metadata,
    Column("id", Integer, nullable=False),
    Column("security_tag", String(64), nullable=False),
    Column("storage_provider", String(64), nullable=False),
    Column("file_name", String(500), nullable=False),
    Column("file_storage_data", Text, nullable=False),
    Column("file_type", String(255)),
    Column("mimetype", String(255)),
    Column("created_at", TIMESTAMP(timezone=True)),
    Column("task_id", Integer),
    _belongs_to_task("TaskFile"),
    PrimaryKeyConstraint("id", name="pk_TaskFile"),
    Index("ix_TaskFile_file_name", "file_name"),
)
task_link = Table(
    "TaskLink",
    runner_metadata,
    Column("id", Integer, nullable=False),
    Column("type", String(64), nullable=False),
    Column("href", String(500), nullable=False),
    Column("task_id", Integer),
    _belongs_to_task("TaskLink"),
    PrimaryKeyConstraint("id", name="pk_TaskLink"),
)
task_update_subscription = Table(
    "TaskUpdateSubscription",
    runner_metadata,
    Column("id", Integer, nullable=False),
    Column("webhook_href", String(500), nullable=False),
    Column("task_href", String(500), nullable=False),
    Column("event_type", String(64)),
    Column("task_id", Integer),
    _belongs_to_task("TaskUpdateSubscription"),
    PrimaryKeyConstraint("id", name="pk_TaskUpdateSubscription"),
)
#: Tables that are none of our business.
alembic_version = Table("alembic_version", runner_metadata, Column("version_num", String(32), primary_key=True))
plugin_state = Table(
    "PluginState", runner_metadata, Column("plugin_id", String(550), primary_key=True), Column("value", JSON)
)

#: An end in a runner's row: naive, as it writes it.
END = datetime(2024, 5, 6, 7, 8, 9)  # noqa: DTZ001

#: Ids of the rows that `fill` makes.
FINISHED, FAILED, RETRIED, WITHOUT_WORD, OPEN, EMPTY = range(1, 7)


def fill(connection: Connection) -> None:
    """Make the tables and insert rows as a runner of several years holds them."""
    runner_metadata.create_all(connection)
    common: dict[str, Any] = {
        "parameters": "{}",
        "multi_step": False,
        "current_step": -1,
        "progress_value": None,
        "progress_start": 0,
        "progress_target": 100,
        "progress_unit": "%",
        "task_log": "",
        "started_at": END,
        "finished_at": END,
        "data": {},
        "task_status": None,
    }
    rows: list[dict[str, Any]] = [
        {"id": FINISHED, "task_name": "done", "task_status": "SUCCESS", "task_log": "one\ntwo", "data": {"ä": [1.5]}},
        {"id": FAILED, "task_name": "failed", "task_status": "FAILURE", "data": None},
        {"id": RETRIED, "task_name": "retried", "task_status": "RETRY"},
        {"id": WITHOUT_WORD, "task_name": "wordless"},
        {"id": OPEN, "task_name": "open", "finished_at": None, "multi_step": True, "current_step": 0},
    ]
    connection.execute(insert(processing_task), [{**common, **row} for row in rows])
    connection.execute(insert(processing_task).values(id=EMPTY, task_log="", data=null()))
    connection.execute(insert(step).values(id=OPEN, number=0, step_id="k", href="h", ui_href="u", cleared=False))
    connection.execute(insert(step).values(id=EMPTY, number=0))
    connection.execute(
        insert(task_file).values(
            id=1,
            security_tag="t",
            storage_provider="local_filesystem",
            file_name="f",
            file_storage_data="/f",
            task_id=EMPTY,
        )
    )
    connection.execute(insert(task_link).values(id=1, type="of-weights", href="h", task_id=FINISHED))
    connection.execute(
        insert(task_update_subscription).values(id=1, webhook_href="hook", task_href="source", task_id=OPEN)
    )
    if connection.dialect.name == "postgresql":
        for name in ("ProcessingTask", "TaskFile", "TaskLink", "TaskUpdateSubscription"):
            connection.exec_driver_sql(f"""SELECT setval(pg_get_serial_sequence('"{name}"', 'id'), 100)""")
    connection.execute(insert(alembic_version).values(version_num="ff55b6ebbbd7"))
    connection.execute(insert(plugin_state).values(plugin_id="p", value={"a": 1}))


def dump(connection: Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Return all rows of the runner as the driver gives them."""
    quote = connection.dialect.identifier_preparer.quote
    return {
        table.name: sorted(
            (tuple(row) for row in connection.exec_driver_sql(f"SELECT * FROM {quote(table.name)}")),  # noqa: S608
            key=repr,
        )
        for table in runner_metadata.sorted_tables
    }
