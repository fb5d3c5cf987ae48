"""The pattern of QHAna's plugins today: a row loaded and saved by hand, a second task for the end, one for errors.

The route saves the row and links an error task. The task loads the row, reports and commits. What it returns becomes
the log entry of a second task, which sets status and end. Results go through Redis, as the runner has it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime

from celery import Celery
from sqlalchemy import DateTime, Float, String, Text, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from benchmarks.contenders.configuration import configure

app = configure(Celery("runner", broker=os.environ["CELERY_BROKER_URL"], backend=os.environ["CELERY_RESULT_URL"]))
engine = create_engine(os.environ["TASKSTATE_DATABASE_URL"])


class _Base(DeclarativeBase):
    pass


class Job(_Base):
    """One row per job, with a log in one column."""

    __tablename__ = "benchmark_runner_job"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(500))
    started_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    finished_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    status: Mapped[str | None] = mapped_column(String(100))
    progress_value: Mapped[float | None] = mapped_column(Float)
    log: Mapped[str] = mapped_column(Text, default="")


@app.task(name="runner.usual")
def usual(job_id: int) -> str:
    """Report once, log once, and return a text."""
    with Session(engine) as session:
        job = session.get_one(Job, job_id)
        job.progress_value = 50.0
        job.log += "half of it is done\n"
        session.commit()
    return "done"


@app.task(name="runner.save_result", ignore_result=True)
def save_result(text: str, job_id: int) -> None:
    """Write the end, with the text that the task returned."""
    with Session(engine) as session:
        job = session.get_one(Job, job_id)
        job.log += f"{text}\n"
        job.status, job.finished_at = "SUCCESS", datetime.now(UTC)
        session.commit()


@app.task(name="runner.save_error", ignore_result=True)
def save_error(_failed: str, job_id: int) -> None:
    """Write the end of a job whose task failed."""
    with Session(engine) as session:
        job = session.get_one(Job, job_id)
        job.status, job.finished_at = "FAILURE", datetime.now(UTC)
        session.commit()


def _usual(count: int) -> int:
    for _ in range(count):
        with Session(engine, expire_on_commit=False) as session:
            job = Job(name="usual", started_at=datetime.now(UTC))
            session.add(job)
            session.commit()
        work = usual.s(job.id) | save_result.s(job.id)
        work.link_error(save_error.s(job_id=job.id))
        work.apply_async()
    return count


def prepare() -> None:
    """Make the table."""
    _Base.metadata.create_all(engine)


KINDS: dict[str, Callable[[int], int]] = {"usual": _usual}
