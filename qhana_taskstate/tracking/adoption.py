"""Finds or makes the task of a plugin task's message that carries none."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from ..database.sessions.own_locks import holds_own_lock
from ..facts import Publication, TaskRef
from ..ids import row_id
from ..plugin.arguments import TASK_ID_PARAMETER, named_task_id
from ..recording.tracker import Tracker
from ..store.executions import lookup, registration
from ..store.task import jobs
from .selection import is_plain

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Adopted:
    """The task of a message.

    Attributes:
        ref: The task.
        joined: It is new work of a task that had the Celery id already, and is still open.
    """

    ref: TaskRef
    joined: bool = False


def adopt(
    tracker: Tracker,
    task: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    publication: Publication,
    *,
    redelivered: bool,
) -> TaskRef | None:
    """Find or make the task of a message that carries none, and register the message.

    A plugin task names its task by the keyword `db_id`; without one the message becomes a task of its own. A task that
    is tracked without the decorator does so by its position too; what it gives there may also mean something else, and
    then it becomes a task of its own.

    Args:
        tracker: Where facts go.
        task: Celery's task object.
        args: Its arguments.
        kwargs: Its keyword arguments.
        publication: The message; its key may be changed.
        redelivered: Whether the broker says that it delivers the message again.

    Returns:
        None if the task is not there yet, or while the thread has an open write on SQLite: our own connection would
        wait for it. The worker then adopts the message.
    """
    if not is_plain(task):
        return _adopt_named(tracker, task.name, kwargs.get(TASK_ID_PARAMETER), publication, redelivered=redelivered)
    given = named_task_id(task.plugin_signature, args, kwargs)
    if row_id(given) is None:
        return _adopt_named(tracker, task.name, None, publication, redelivered=redelivered)
    ref = _adopt_named(tracker, task.name, given, publication, redelivered=redelivered)
    if ref is None and publication.sent:
        # A row that is not there when the message arrives is not committed later.
        return _adopt_named(tracker, task.name, None, publication, redelivered=redelivered)
    return ref


def _adopt_named(
    tracker: Tracker, name: str, given: object, publication: Publication, *, redelivered: bool
) -> TaskRef | None:
    """Find or make the task of a message: the one whose id is given, a new one for None."""
    if tracker.must_not_write() or holds_own_lock(tracker.database):
        return None
    task_id = row_id(given)
    if given is not None and task_id is None:
        logger.warning("%s was sent with db_id=%r, which is no id of a task; it is not tracked", name, given)
        return None
    if task_id is not None and not tracker.database.read(lambda connection: jobs.has_task(connection, task_id)):
        logger.warning("%s was sent with db_id=%s, but there is no such task yet", name, task_id)
        return None

    key, seconds = publication.key, tracker.settings.publish_deadline_seconds

    finishes = False if task_id is not None and not tracker.settings.db_id_finishes else None

    def work(connection: Connection) -> Adopted:
        # It may be tried again, after a first try that was rolled back.
        publication.key = key
        return find_or_make(
            connection,
            name,
            publication,
            task_id,
            finishes=finishes,
            redelivered=redelivered,
            deadline_seconds=seconds,
        )

    adopted = tracker.write(work)
    if adopted.joined:
        logger.warning(
            "%s was sent again with the Celery id %r of task %s, which is still open, and belongs to that task; "
            "give work that is to be a task of its own another task_id",
            name,
            key.celery_id,
            adopted.ref.task_id,
        )
    return adopted.ref


def find_or_make(
    connection: Connection,
    name: str,
    publication: Publication,
    task_id: int | None,
    *,
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
        publication: The message; its key may be changed.
        task_id: The task that the message names by `db_id`; None if it names none.
        finishes: As for `take_up`, of the task that the message names.
        redelivered: Whether the broker says that it delivers the message again, so that it may be known already.
        deadline_seconds: As for `store.register`.
    """
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
    registration.register(connection, ref.task_id, [publication], deadline_seconds=deadline_seconds)
    return Adopted(ref, joined)


def _nest_deeper(publication: Publication, nesting: int) -> None:
    publication.key = dataclasses.replace(publication.key, nesting=nesting)
    message = publication.message
    if message is not None:
        headers = {**json.loads(message.headers), "replaced_task_nesting": nesting}
        publication.message = dataclasses.replace(message, headers=json.dumps(headers))
