"""Starting the first work of a task again: a canvas as text, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from celery import Celery
from celery.canvas import Signature, maybe_signature
from kombu import serialization

from ...broker.kept_messages import as_text, from_text
from ...store.task.first_work import KeptWork

#: Options that name one message, or the moment of one start, and so belong to no other.
_OF_ONE_START: Final = frozenset(
    {
        "task_id",
        "reply_to",
        "root_id",
        "parent_id",
        "group_id",
        "headers",
        "eta",
        "countdown",
        "expires",
        "connection",
        "producer",
    }
)


def as_kept(app: Celery, canvas: Signature, options: Mapping[str, Any]) -> KeptWork:
    """Return a canvas and the options of its start as text.

    Args:
        app: The Celery app, whose serializer for tasks is used.
        canvas: The work, before ids are written into it.
        options: Options of `apply_async`.
    """
    told = {name: value for name, value in options.items() if name not in _OF_ONE_START}
    content_type, encoding, payload = serialization.dumps(
        {"canvas": dict(canvas), "options": told}, app.conf.task_serializer
    )
    return KeptWork(content_type, encoding, as_text(payload, encoding))


def from_kept(app: Celery, work: KeptWork) -> tuple[Signature, dict[str, Any]]:
    """Return the canvas and the options; of what named the messages of the first start nothing is left."""
    body = from_text(work.body, work.content_encoding)
    told = serialization.loads(body, work.content_type, work.content_encoding, accept={work.content_type})
    canvas: Any = maybe_signature(told["canvas"], app=app)
    for signature in _all(canvas):
        for name in _OF_ONE_START & set(signature.options):
            del signature.options[name]
    return canvas, told["options"]


def _all(signature: Any) -> Iterator[Any]:
    """Go through a canvas with all that is in it."""
    yield signature
    options = signature.get("options", {})
    for name in ("link", "link_error"):
        linked = options.get(name) or []
        for member in linked if isinstance(linked, list) else [linked]:
            yield from _all(member)
    kwargs = signature.get("kwargs") or {}
    if signature.get("subtask_type") in {"chain", "group", "chord"}:
        members = kwargs.get("tasks") or kwargs.get("header") or []
        for member in members.get("kwargs", {}).get("tasks", []) if isinstance(members, dict) else members:
            yield from _all(member)
        if kwargs.get("body"):
            yield from _all(kwargs["body"])
