"""Handlers of signals about published messages: the header that makes them belong, their registration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from ...broker import kept_messages
from ...broker.routing import queue_of
from ...clock import as_utc, now
from ...context.current import current_publisher
from ...context.execution import Detached, Execution, Publisher, Submission
from ...context.header import HEADER, OWN_TASK_PREFIX
from ...context.nesting import nesting_of
from ...context.traces import pass_on
from ...facts import ExecutionKey, Publication, TaskRef
from ...plugin.task_class import find_plugin_task, resent
from ..adoption import adopt
from ..listener import find, never_fails
from ..selection import select_one
from ..submission.kept_work import message_as_kept

#: What the body of a message consists of (protocol 2).
_PARTS: Final = ("args", "kwargs", "what follows")


@never_fails
def on_before_task_publish(
    sender: str,
    headers: dict[str, Any],
    body: Any,
    exchange: Any = None,
    routing_key: str | None = None,
    properties: Mapping[str, Any] | None = None,
    declare: Sequence[Any] | None = None,
    **_: Any,
) -> None:
    """Put the task's header into a message, and note the message for registration."""
    publisher = current_publisher()
    if isinstance(publisher, Execution) and headers.get("id") and not sender.startswith(OWN_TASK_PREFIX):
        nesting = nesting_of(headers, body, publisher)
        while publisher.has_sent(ExecutionKey.of_headers({**headers, "replaced_task_nesting": nesting})):
            # The same run sends it again, so it is new work, unlike what a run sends that was delivered again.
            nesting += 1
        headers["replaced_task_nesting"] = nesting
    key = ExecutionKey.of_headers(headers)
    if key is None or sender.startswith(OWN_TASK_PREFIX):
        return
    publication = Publication(
        key=key,
        name=sender,
        parent_id=headers.get("parent_id"),
        queue=queue_of(exchange, routing_key, declare),
        published_at=now(),
        eta=_moment(headers.get("eta")),
        expires=_moment(headers.get("expires")),
    )
    listener = find(None) if sender in resent else None
    if listener is not None:
        publication.message = kept_messages.keep(
            listener.app,
            sender,
            body=body,
            headers=headers,
            properties=properties or {},
            exchange=exchange,
            routing_key=routing_key,
        )
    ref = TaskRef.decode(headers.get(HEADER))
    if isinstance(publisher, Publisher) and (ref is None or ref == publisher.ref):
        headers[HEADER] = publisher.ref.encode()
        _note(publisher, publication)
    elif ref is not None:
        _register_now(ref, publication)
    elif not isinstance(publisher, Detached):
        _adopt_at_publish(sender, headers, properties or {}, body, publication)
    if HEADER in headers:
        pass_on(headers, publisher.request if isinstance(publisher, Execution) else None)


def _note(publisher: Publisher, publication: Publication) -> None:
    if isinstance(publisher, Execution) and (publisher.closed or publisher.inherited):
        # A thread that outlived its execution, or a process that it forked: nothing else registers for these.
        _register_now(publisher.ref, publication)
        return
    if isinstance(publisher, Submission):
        publisher.published += 1
        if publication.key == publisher.registered:
            listener = find(None) if publication.message is not None else None
            if listener is not None:
                # Before it goes out: afterwards the broker may lose it at any moment.
                listener.recorder.keep(publisher.ref, publication)
            return
    publisher.publications.append(publication)


def _register_now(ref: TaskRef, publication: Publication) -> None:
    listener = find(None)
    if listener is not None and not listener.recorder.sessions.open_write():
        listener.recorder.register(ref, [publication])


def _adopt_at_publish(
    name: str, headers: dict[str, Any], properties: Mapping[str, Any], body: Any, publication: Publication
) -> None:
    listener = find(None)
    if listener is None:
        return
    select_one(listener.app.tasks.get(name), listener.recorder.settings.track, listener.task_class)
    task = find_plugin_task(listener.app, name)
    if task is None:
        return
    args, kwargs, follows = body if isinstance(body, (tuple, list)) and len(body) == len(_PARTS) else ((), {}, {})
    kwargs = kwargs if isinstance(kwargs, Mapping) else {}
    kept = message_as_kept(task, args, kwargs, follows, _options_of(headers, properties, publication.queue))
    ref = adopt(listener.recorder, task, args, kwargs, publication, kept=kept, redelivered=False)
    if ref is not None:
        headers[HEADER] = ref.encode()
        headers["replaced_task_nesting"] = publication.key.nesting


def _options_of(headers: Mapping[str, Any], properties: Mapping[str, Any], queue: str | None) -> dict[str, Any]:
    """Return the options of `apply_async` with which such a message is sent."""
    hard, soft = headers.get("timelimit") or (None, None)
    return {
        "queue": queue,
        "priority": properties.get("priority"),
        "time_limit": hard,
        "soft_time_limit": soft,
        "ignore_result": headers.get("ignore_result"),
    }


@never_fails
def on_after_task_publish(sender: str, headers: Mapping[str, Any], **_: Any) -> None:
    """Note that a message was handed to the broker; one that failed to go out must not be waited for."""
    publisher = current_publisher()
    key = ExecutionKey.of_headers(headers)
    if isinstance(publisher, Publisher) and key is not None:
        publisher.note_sent(key)


def _moment(value: object) -> datetime | None:
    if not isinstance(value, str):
        return value if isinstance(value, datetime) else None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return as_utc(moment)
