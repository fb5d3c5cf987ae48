"""Finds or makes the task of a plugin task's message that carries none."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ..clock import now
from ..context.execution import Execution
from ..context.header import HEADER
from ..database.sessions.own_locks import holds_own_lock
from ..facts import ExecutionKey, Publication, TaskRef
from ..ids import row_id
from ..plugin.arguments import TASK_ID_PARAMETER, named_task_id
from ..recording.execution_recorder import ExecutionRecorder
from ..store.adoption import find_or_make
from ..store.executions.celery_ids import column_id
from ..store.task import first_work, jobs
from ..store.task.first_work import KeptWork
from .selection import is_plain
from .submission.kept_work import message_as_kept

logger = logging.getLogger(__name__)


def adopt(
    recorder: ExecutionRecorder,
    task: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    publication: Publication,
    *,
    kept: KeptWork | None,
    redelivered: bool,
) -> TaskRef | None:
    """Find or make the task of a message that carries none, and register the message.

    A plugin task names its task by the keyword `db_id`; without one the message becomes a task of its own. A task that
    is tracked without the decorator may also give `db_id` by position. If the value there names no task, it meant
    something else, and the message becomes a task of its own.

    Args:
        recorder: Where facts go.
        task: Celery's task object.
        args: Its arguments.
        kwargs: Its keyword arguments.
        publication: The message; its key may be changed.
        kept: Its work, if that is to be kept for a restart.
        redelivered: Whether the broker says that it delivers the message again.

    Returns:
        None if the task is not there yet, or while the thread has an open write on SQLite: our own connection would
        wait for it. The worker then adopts the message.
    """
    adopt_named = partial(
        _adopt_named, recorder, task.name, publication=publication, kept=kept, redelivered=redelivered
    )
    if not is_plain(task):
        return adopt_named(kwargs.get(TASK_ID_PARAMETER))
    given = named_task_id(task.plugin_signature, args, kwargs)
    if row_id(given) is None:
        return adopt_named(None)
    ref = adopt_named(given)
    if ref is None and publication.sent:
        # A row that is not there when the message arrives is not committed later.
        return adopt_named(None)
    return ref


def adopt_received(
    recorder: ExecutionRecorder, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any], key: ExecutionKey
) -> tuple[TaskRef | None, ExecutionKey]:
    """Find or make the task of a received message that names none; returns it, and the key that it has there."""
    request = task.request
    publication = Publication(key, task.name, request.parent_id, None, now(), None, sent=True)
    redelivered = bool((request.delivery_info or {}).get("redelivered"))
    kept = _received_as_kept(task, args, kwargs)
    ref = adopt(recorder, task, args, kwargs, publication, kept=kept, redelivered=redelivered)
    if ref is not None and request.is_eager:
        # A further attempt is called with the headers of this one, outside of it (celery 5.5 to 5.7).
        request.headers = {**(request.headers or {}), HEADER: ref.encode()}
    return ref, publication.key


def keep_received(execution: Execution, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Keep the first work of a task for a restart where the process that started it knew its name alone."""
    task, request, key = execution.task, execution.request, execution.key
    recorder = execution.recorder
    is_first = not (request.is_eager or key.retries or key.nesting or request.parent_id or request.group)
    is_ours = execution.function is not None and execution.known and not execution.closed
    if not (is_first and is_ours) or recorder.must_not_write():
        return
    work = _received_as_kept(task, args, kwargs)
    task_id = execution.ref.task_id
    if work is None or recorder.database.read(partial(first_work.is_kept, task_id=task_id)):
        return
    registered = column_id(key.celery_id)
    recorder.write(partial(first_work.keep_first, task_id=task_id, work=work, registered=registered))


def _received_as_kept(task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> KeptWork | None:
    request = task.request
    came = request.delivery_info or {}
    hard, soft = request.timelimit or (None, None)
    options = {
        # Through the exchange without a name, the routing key is the name of the queue.
        "queue": came.get("routing_key") if came.get("exchange") == "" else None,
        "priority": came.get("priority"),
        "time_limit": hard,
        "soft_time_limit": soft,
        "ignore_result": request.ignore_result,
    }
    follows = {"chain": request.chain, "callbacks": request.callbacks, "errbacks": request.errbacks}
    return message_as_kept(task, args, kwargs, follows, options)


def _adopt_named(
    recorder: ExecutionRecorder,
    name: str,
    given: object,
    *,
    publication: Publication,
    kept: KeptWork | None,
    redelivered: bool,
) -> TaskRef | None:
    """Find or make the task of a message: the one whose id is given, a new one for None."""
    if recorder.must_not_write() or holds_own_lock(recorder.database):
        return None
    task_id = row_id(given)
    if given is not None and task_id is None:
        logger.warning("%s was sent with db_id=%r, which is no id of a task; it is not tracked", name, given)
        return None
    if task_id is not None and not recorder.database.read(partial(jobs.has_task, task_id=task_id)):
        logger.warning("%s was sent with db_id=%s, but there is no such task yet", name, task_id)
        return None

    key, seconds = publication.key, recorder.settings.publish_deadline_seconds

    finishes = False if task_id is not None and not recorder.settings.db_id_finishes else None

    work = partial(
        find_or_make,
        name=name,
        publication=publication,
        key=key,
        task_id=task_id,
        kept=kept,
        finishes=finishes,
        redelivered=redelivered,
        deadline_seconds=seconds,
    )
    adopted = recorder.write(work)
    if adopted.joined:
        logger.warning(
            "%s was sent again with the Celery id %r of task %s, which is still open, and belongs to that task; "
            "give work that is to be a task of its own another task_id",
            name,
            key.celery_id,
            adopted.ref.task_id,
        )
    return adopted.ref
