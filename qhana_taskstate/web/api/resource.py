"""The task resource: `GET` and `POST /tasks/<id>/`, as QHAna's backend, plugins and pages know it."""

from __future__ import annotations

import logging
from typing import Any

from flask import Response, json, request
from flask_smorest import Blueprint
from webargs.flaskparser import abort

from ...errors import ArgumentsError, SettingsError, TextTooLongError, WebhookTargetError
from ...events import TaskEvent
from ...facade.task_state import TaskState
from ...ids import LARGEST_ID
from ...models.file import TaskFile
from ...models.task import ProcessingTask
from ...reading import resource
from ...texts import is_storable
from ..marks.bodies import Body
from ..marks.mark import Mark, read_mark
from ..problems import not_found, refuse
from ..site import Site
from . import unknown_events
from .schemas import CommandSchema, TaskSchema

logger = logging.getLogger(__name__)


class Resource:
    """The views of the task resource.

    Args:
        site: What it belongs to.
    """

    def __init__(self, site: Site) -> None:
        self._site = site

    def register(self, blueprint: Blueprint) -> None:
        """Add the views to a blueprint."""
        get = blueprint.alt_response(304, description="Nothing has changed since.")(self.get)
        get = blueprint.alt_response(404, description="There is no such task.")(get)
        get = blueprint.response(200, TaskSchema, description="The task.")(get)
        blueprint.route("/tasks/<int:task_id>/", methods=["GET"], endpoint="task")(_named(get, "task"))
        post = blueprint.alt_response(404, description="There is no such task.")(self.post)
        post = blueprint.response(200, TaskSchema, description="The task.")(post)
        post = blueprint.arguments(CommandSchema)(post)
        blueprint.route("/tasks/<int:task_id>/", methods=["POST"], endpoint="command")(_named(post, "command"))

    def get(self, task_id: int) -> Response:
        """Show a task, or say with 304 that it is as the client knows it."""
        body = self.body(task_id)
        if request.if_none_match.contains_weak(body.etag):
            answer = Response(status=304)
        else:
            answer = Response(body.content, mimetype="application/json")
        answer.headers["ETag"] = f'"{body.etag}"'
        # Kept by the client, and asked for anew each time.
        answer.headers["Cache-Control"] = "private, no-cache"
        return answer

    def post(self, told: dict[str, Any], task_id: int) -> Response:
        """Subscribe or unsubscribe a webhook, and show the task."""
        state = self._site.taskstate()
        if task_id > LARGEST_ID or ProcessingTask.get_by_id(task_id) is None:
            not_found()
        href, event = told["webhookHref"], told.get("event", ...)
        if isinstance(event, str) and not is_storable(event):
            refuse("json", "event", "It has a character that no database takes.")
        # Any text is taken, as today; what is none of the events never happens.
        to = unknown_events if isinstance(event, str) and event not in set(TaskEvent) else TaskState
        try:
            match told["command"]:
                case "subscribe":
                    base = self._site.base(f"/tasks/{task_id}/")
                    to.subscribe(state, task_id, href, f"{base}/tasks/{task_id}/", None if event is ... else event)
                case "unsubscribe":
                    to.unsubscribe(state, task_id, href, event)
                case _:
                    abort(400, message="command is null; use 'subscribe' or 'unsubscribe'.")
        except (WebhookTargetError, TextTooLongError, SettingsError, ArgumentsError) as exc:
            refuse("json", "webhookHref", str(exc))
        return Response(self.body(task_id).content, mimetype="application/json")

    def body(self, task_id: int) -> Body:
        """Return the body of a task's resource; ends the request with 404 if there is no such task."""
        state = self._site.taskstate()
        base = self._site.base(f"/tasks/{task_id}/")
        mark = None
        if task_id <= LARGEST_ID:
            with state.sessions.explaining():
                mark = state.database.read(lambda connection: read_mark(connection, task_id))
        if mark is None:
            not_found()
        known = self._site.bodies.get(task_id, base, mark)
        if known is not None:
            return known
        return self._make_body(task_id, base, mark)

    def _make_body(self, task_id: int, base: str, mark: Mark) -> Body:
        state = self._site.taskstate()
        task = ProcessingTask.get_by_id(task_id)
        if task is None:
            not_found()
        described = resource.describe(
            task, state.settings, base=base, href_of=lambda file_id: self._href(file_id, base)
        )
        # QHAna's backend cannot read an output that nobody can fetch, and would lose the whole result.
        described["outputs"] = [output for output in described["outputs"] if "href" in output]
        body = Body.of(mark, json.dumps(described).encode())
        if not (described["outputs"] and self._site.files.file_url is not None):
            # An address of the host's store may hold for a while only.
            self._site.bodies.keep(task_id, base, body)
        return body

    def _href(self, file_id: int, base: str) -> str | None:
        file = TaskFile.get_by_id(file_id)
        href = None if file is None else self._site.files.href(file, base)
        if file is not None and href is None:
            logger.warning("output %s is left out: nobody knows where %r keeps it", file_id, file.storage_provider)
        return href


def _named(view: Any, name: str) -> Any:
    view.__name__ = name
    return view
