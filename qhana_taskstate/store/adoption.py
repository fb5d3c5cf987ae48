"""Finds or makes the task that a message belongs to which names none."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from sqlalchemy import Connection

from ..facts import ExecutionKey, Publication, TaskRef
from .executions import lookup, registration
from .task import first_work, jobs
from .task.first_work import KeptWork


@dataclass(frozen=True, slots=True)
class Adopted:
    """The task of a message.

    Attributes:
        ref: The task.
        joined: It is new work of a task that had the Celery id already, and is still open.
    """

    ref: TaskRef
    joined: bool = False


def find_or_make(
    connection: Connection,
    name: str,
    publication: Publication,
    *,
    key: ExecutionKey,
    task_id: int | None,
    kept: KeptWork | None = None,
    finishes: bool | None = None,
    redelivered: bool,
    deadline_seconds: float,
) -> Adopted:
    """Find or make the task of a message, and register the message. Does not commit.

    A Celery id may be used again (`task_id=` of `apply_async`, or of an entry of beat). What is published with the
    id of a task that has ended is a new task. Where that task is still open it is a further execution of it, told
    apart from the first one by its nesting, which is put into the publication's key. What the broker delivers again
    is neither.

    Args:
        connection: In whose transaction to write.
        name: Name of the Celery task.
        publication: The message; it gets the key that it has in the task.
        key: The key that it was published with.
        task_id: The task that the message names by `db_id`; None if it names none.
        kept: Its work, which is kept if it is the first of the task.
        finishes: As for `take_up`, of the task that the message names.
        redelivered: Whether the broker says that it delivers the message again, so that it may be known already.
        deadline_seconds: As for `executions.registration.register`.
    """
    # It may be tried again, after a first try that was rolled back.
    publication.key = key
    known = lookup.find_task(connection, publication.key.celery_id)
    if known is not None and task_id not in (None, known.task_id):
        known = None
    job = jobs.lock_job(connection, known.task_id) if known is not None else None
    if job is None or not (redelivered or (job.end_status is None and jobs.has_task(connection, job.ref.task_id))):
        ref, joined = jobs.take_up(connection, task_id or jobs.add_task(connection, name), finishes=finishes).ref, False
    else:
        ref, joined = job.ref, False
        if not redelivered and registration.is_registered(connection, ref.task_id, publication.key):
            jobs.take_up(connection, ref.task_id)
            _nest_deeper(publication, registration.free_nesting(connection, ref.task_id, publication.key.celery_id))
            joined = True
    if kept is not None:
        first_work.keep_first(connection, ref.task_id, kept)
    registration.register(connection, ref.task_id, [publication], deadline_seconds=deadline_seconds)
    return Adopted(ref, joined)


def _nest_deeper(publication: Publication, nesting: int) -> None:
    publication.key = dataclasses.replace(publication.key, nesting=nesting)
    message = publication.message
    if message is not None:
        headers = {**json.loads(message.headers), "replaced_task_nesting": nesting}
        publication.message = dataclasses.replace(message, headers=json.dumps(headers))
