"""The work that is kept for a restart: a canvas or a received message as text, and back."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from celery import Celery
from celery.canvas import Signature, _chain, maybe_signature
from kombu import serialization
from kombu.exceptions import EncodeError
from kombu.utils.functional import maybe_list
from sqlalchemy.orm import Session

from ...broker.kept_messages import as_text, from_text
from ...database.engine import Database
from ...errors import NotRestartableError
from ...ids import row_id
from ...models.link import TaskLink
from ...models.task import ProcessingTask
from ...plugin.arguments import TASK_ID_PARAMETER
from ...plugin.task_class import find_plugin_task
from ...store.task import first_work
from ...store.task.first_work import KeptWork
from .canvas import Leaf, leaves_of

logger = logging.getLogger(__name__)

#: Options that name one message, or the moment of one start, and so belong to no other.
_OF_ONE_START: Final = frozenset(
    {
        "task_id",
        "reply_to",
        "root_id",
        "parent_id",
        "group_id",
        "group_index",
        "chord",
        "headers",
        "eta",
        "countdown",
        "expires",
        "connection",
        "producer",
    }
)


def may_be_restarted(app: Celery, leaves: Iterable[Leaf]) -> bool:
    """Tell whether one member of a canvas is a plugin task declared `restartable=True`."""
    tasks = (find_plugin_task(app, leaf.signature.task) for leaf in leaves)
    return any(task is not None and task.restartable for task in tasks)


def as_kept(app: Celery, canvas: Signature, options: Mapping[str, Any]) -> KeptWork:
    """Return a canvas and the options of its start as text.

    Args:
        app: The Celery app, whose serializer for tasks is used.
        canvas: The work, before ids are written into it.
        options: Options of `apply_async`.
    """
    kept = {name: value for name, value in options.items() if name not in _OF_ONE_START}
    serializer = _serializer(app, canvas, options)
    content_type, encoding, payload = serialization.dumps({"canvas": dict(canvas), "options": kept}, serializer)
    return KeptWork(content_type, encoding, as_text(payload, encoding))


def _serializer(app: Celery, canvas: Signature, options: Mapping[str, Any]) -> str:
    """Return the serializer of the first message whose serializer is chosen: that one writes the others too."""
    chosen = [options.get("serializer")]
    for leaf in leaves_of(canvas):
        chosen += (
            leaf.signature.options.get("serializer"),
            getattr(find_plugin_task(app, leaf.signature.task), "serializer", None),
        )
    usual = app.conf.task_serializer
    return next((str(name) for name in chosen if name and name != usual), usual)


def message_as_kept(
    task: Any, args: Sequence[Any], kwargs: Mapping[str, Any], follows: Mapping[str, Any], options: Mapping[str, Any]
) -> KeptWork | None:
    """Return the work of a message that was sent the plain way, with what follows it, as text.

    Args:
        task: Celery's task object.
        args: Its arguments.
        kwargs: Its keyword arguments.
        follows: What Celery put beside them: `chain` (last first), `callbacks`, `errbacks`.
        options: Options of `apply_async` for it.

    Returns:
        None if none of it is declared `restartable=True`, or if it cannot be written as text, which is logged.
    """
    rest = follows.get("chain") or ()
    if not (getattr(task, "restartable", False) or rest):
        return None
    app = task.app
    linked = {"link": follows.get("callbacks"), "link_error": follows.get("errbacks")}
    given = {name: value for name, value in {**options, **linked}.items() if value}
    first = task.signature(tuple(args), dict(kwargs), **given)
    canvas = first
    if rest:
        members: list[Any] = [maybe_signature(member, app=app) for member in reversed(rest)]
        canvas = _chain(first, *members, app=app)
    if not may_be_restarted(app, leaves_of(canvas)):
        return None
    try:
        return as_kept(app, canvas, {})
    except (EncodeError, TypeError, ValueError) as exc:
        logger.warning("the work of %s cannot be kept, to be started again: %s", task.name, type(exc).__name__)
        return None


def from_kept(app: Celery, work: KeptWork) -> tuple[Signature, dict[str, Any]]:
    """Return the canvas and the options; of what named the messages of the first start nothing is left."""
    body = from_text(work.body, work.content_encoding)
    read = serialization.loads(body, work.content_type, work.content_encoding, accept={work.content_type})
    canvas: Any = maybe_signature(read["canvas"], app=app)
    for signature in _all(canvas):
        for name in _OF_ONE_START & set(signature.options):
            del signature.options[name]
    return canvas, read["options"]


def _all(signature: Any) -> Iterator[Any]:
    """Go through a canvas with all that is in it."""
    yield signature
    options = signature.get("options", {})
    for name in ("link", "link_error"):
        for member in maybe_list(options.get(name)) or ():
            yield from _all(member)
    kwargs = signature.get("kwargs") or {}
    if signature.get("subtask_type") in {"chain", "group", "chord"}:
        members = kwargs.get("tasks") or kwargs.get("header") or []
        for member in members.get("kwargs", {}).get("tasks", []) if isinstance(members, dict) else members:
            yield from _all(member)
        if kwargs.get("body"):
            yield from _all(kwargs["body"])


def work_of(app: Celery, database: Database, task_id: int) -> tuple[Signature, dict[str, Any]]:
    """Return the first work of a task, ready to be started, and the options of its start.

    Raises:
        NotRestartableError: If it was not kept.
    """
    kept = database.read(lambda connection: first_work.find(connection, task_id))
    if kept is None:
        raise NotRestartableError(task_id)
    return from_kept(app, kept)


def new_task_like(session: Session, old: ProcessingTask, href: str) -> ProcessingTask:
    """Add a task with the name and parameters of another one to a session, and a link that leads to that one."""
    new = ProcessingTask(old.task_name, parameters=old.parameters)
    session.add(new)
    session.add(TaskLink(new, "restart-of", href))
    return new


def lead_to(session: Session, new: ProcessingTask, canvas: Signature, old_id: int) -> None:
    """Let the signatures of a canvas whose keyword `db_id` names an old task name a new one, whose row is flushed."""
    for signature in _all(canvas):
        kwargs = signature.get("kwargs") or {}
        given = kwargs.get(TASK_ID_PARAMETER)
        if row_id(given) == old_id:
            session.flush()
            kwargs[TASK_ID_PARAMETER] = str(new.id) if isinstance(given, str) else new.id
