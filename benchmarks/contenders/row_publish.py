"""The least that a host does by hand: one row that says that there is a job, committed, then the message."""

from __future__ import annotations

import os
from collections.abc import Callable

from celery import Celery
from sqlalchemy import Column, DateTime, Integer, MetaData, String, Table, create_engine, func, insert

from benchmarks.contenders.configuration import configure

app = configure(Celery("row_publish", broker=os.environ["CELERY_BROKER_URL"]))
engine = create_engine(os.environ["TASKSTATE_DATABASE_URL"])
metadata = MetaData()
jobs = Table(
    "benchmark_job",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(100), nullable=False),
    Column("started_at", DateTime(timezone=True), nullable=False),
    Column("status", String(20)),
)


@app.task(name="row_publish.nothing", ignore_result=True)
def nothing(_job_id: int) -> None:
    """Do nothing."""


def _nothing(count: int) -> int:
    for _ in range(count):
        with engine.begin() as connection:
            row = insert(jobs).values(name="job", started_at=func.now()).returning(jobs.c.id)
            job_id = connection.execute(row).scalar_one()
        nothing.delay(job_id)
    return count


def prepare() -> None:
    """Make the table."""
    metadata.create_all(engine)


KINDS: dict[str, Callable[[int], int]] = {"nothing": _nothing}
