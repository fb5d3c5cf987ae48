"""Server-sent events: what changed about a task, or about the tasks of a list."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any, Final

from flask import Response, json, request
from flask_smorest import Blueprint
from webargs.flaskparser import abort

from ...ids import LARGEST_ID
from ..marks.mark import EVENTS, Mark, read_mark
from ..marks.watcher import Look, Watch
from ..problems import RETRY_SECONDS, not_found, refuse
from ..site import Site
from .schemas import StreamQuerySchema

#: After so many seconds without news a comment is sent, so that nobody on the way takes the stream for dead.
_QUIET_SECONDS: Final = 15.0

#: How long a browser waits before it opens a stream that broke again, in milliseconds.
_RETRY_MILLISECONDS: Final = 2000

#: The most tasks that one stream of a list shows.
_MOST_IDS: Final = 500


class Events:
    """The views of the streams.

    Args:
        site: What they belong to.
    """

    def __init__(self, site: Site) -> None:
        self._site = site

    def register(self, blueprint: Blueprint) -> None:
        """Add the views to a blueprint."""
        one = blueprint.alt_response(404, description="There is no such task.")(self.of_task)
        one = blueprint.alt_response(204, description="It has ended, and the client knows all of it.")(one)
        one = blueprint.response(200, content_type="text/event-stream", description="Events as they happen.")(one)
        blueprint.route("/tasks/<int:task_id>/events", methods=["GET"], endpoint="events")(one)
        some = blueprint.response(200, content_type="text/event-stream", description="Events as they happen.")(
            self.of_list
        )
        some = blueprint.arguments(StreamQuerySchema, location="query")(some)
        blueprint.route("/tasks/events", methods=["GET"], endpoint="list_events")(some)

    def of_task(self, task_id: int) -> Response:
        """Tell of a task: the events of `marks.mark.EVENTS`, until it has ended. Resumes by `Last-Event-ID`."""
        state = self._site.taskstate()
        mark = None
        if task_id <= LARGEST_ID:
            with state.sessions.explaining():
                mark = state.database.read(lambda connection: read_mark(connection, task_id))
        if mark is None:
            not_found()
        known = _known_digests(request.headers.get("Last-Event-ID"))
        if mark.finished and known == mark.digests:
            # Tells a browser not to come again.
            return Response(status=204)
        watch = Watch({task_id}, newest=False)
        return self._stream(watch, _of_task(watch, task_id, mark, known))

    def of_list(self, query: dict[str, Any]) -> Response:
        """Tell of the tasks with these ids, and of new ones: `changed`. Resumes by `Last-Event-ID`."""
        texts = [text for text in query["ids"].split(",") if text]
        if len(texts) > _MOST_IDS or not all(text.isascii() and text.isdigit() and len(text) < 19 for text in texts):
            refuse("query", "ids", f"ids of at most {_MOST_IDS} tasks are needed, separated by commas")
        watch = Watch({int(text) for text in texts if int(text) <= LARGEST_ID}, newest=True)
        return self._stream(watch, _of_list(watch, request.headers.get("Last-Event-ID")))

    def _stream(self, watch: Watch, events: Iterator[str]) -> Response:
        if not self._site.watcher.begin(watch):
            abort(503, message="There are too many open streams.", headers={"Retry-After": str(RETRY_SECONDS)})
        answer = Response(self._watched(watch, events), mimetype="text/event-stream")
        answer.headers["Cache-Control"] = "no-cache"
        # nginx would keep events back until its buffer is full.
        answer.headers["X-Accel-Buffering"] = "no"
        answer.call_on_close(lambda: self._site.watcher.end(watch))
        return answer

    def _watched(self, watch: Watch, events: Iterator[str]) -> Iterator[str]:
        try:
            yield from events
        finally:
            self._site.watcher.end(watch)


def _of_task(watch: Watch, task_id: int, mark: Mark, known: tuple[str, ...] | None) -> Iterator[str]:
    # Without data no event is dispatched, but the browser remembers the id.
    seen = mark.digests if known is None and not mark.finished else known or ("",) * len(EVENTS)
    yield f"retry: {_RETRY_MILLISECONDS}\nid: {_joined(seen)}\n\n"
    current: Mark | None = mark
    while current is not None:
        changed = [name for name, old, new in zip(EVENTS, seen, current.digests, strict=True) if old != new]
        seen = current.digests
        for name in changed:
            yield _event(name, _joined(seen), {"taskId": task_id, "finished": current.finished})
        if current.finished:
            return
        while (look := watch.get(_QUIET_SECONDS)) is None:
            yield ": still here\n\n"
        current = look.marks.get(task_id)
    yield _event("gone", "gone", {"taskId": task_id})


def _of_list(watch: Watch, known: str | None) -> Iterator[str]:
    yield f"retry: {_RETRY_MILLISECONDS}\n\n"
    before: Look | None = None
    while True:
        look = watch.get(_QUIET_SECONDS)
        if look is None:
            yield ": still here\n\n"
            continue
        here = _list_id(look)
        if before is None:
            changed = known is not None and known != here
            ids = sorted(look.marks) if changed else []
        else:
            ids = sorted(task_id for task_id in watch.task_ids if look.marks.get(task_id) != before.marks.get(task_id))
            changed = bool(ids) or look.newest != before.newest
        if changed:
            yield _event("changed", here, {"tasks": ids, "newest": look.newest})
        elif before is None:
            yield f"id: {here}\n\n"
        before = look


def _list_id(look: Look) -> str:
    told = repr((look.newest, sorted((task_id, mark.digests) for task_id, mark in look.marks.items())))
    return blake2b(told.encode(errors="replace"), digest_size=8).hexdigest()


def _event(name: str, id_: str, told: dict[str, Any]) -> str:
    return f"event: {name}\nid: {id_}\ndata: {json.dumps(told)}\n\n"


def _joined(digests: tuple[str, ...]) -> str:
    return "-".join(digests)


def _known_digests(text: str | None) -> tuple[str, ...] | None:
    parts = tuple((text or "").split("-"))
    return parts if len(parts) == len(EVENTS) else None
