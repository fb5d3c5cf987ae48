"""Views for programs beside the task resource: the list, the log, the executions, cancel."""

from __future__ import annotations

from typing import Any

from flask import Response, json, request
from flask_smorest import Blueprint

from ...ids import LARGEST_ID
from ...reading import listing as reading_listing
from ...reading.as_json import execution_json
from ...reading.rows import executions as rows_executions
from ...reading.rows.views import StepView, TaskView
from ...reading.waiting import one as wait
from ...states import with_error_word
from ...store.log import entries
from ..filters import before_of, cursor_of, filter_of
from ..problems import not_found, refuse
from ..site import Site
from .schemas import (
    CancelledSchema,
    CancelSchema,
    ListQuerySchema,
    LogQuerySchema,
    LogSchema,
    RestartedSchema,
    TaskListSchema,
)


class Tasks:
    """The views.

    Args:
        site: What they belong to.
    """

    def __init__(self, site: Site) -> None:
        self._site = site

    def register(self, blueprint: Blueprint) -> None:
        """Add the views to a blueprint."""
        listed = blueprint.response(200, TaskListSchema, description="A page of tasks.")(self.list)
        listed = blueprint.arguments(ListQuerySchema, location="query")(listed)
        blueprint.route("/tasks/", methods=["GET"], endpoint="list")(listed)
        log = blueprint.alt_response(404, description="There is no such task.")(self.log)
        log = blueprint.response(200, LogSchema, description="The log from there on.")(log)
        log = blueprint.arguments(LogQuerySchema, location="query")(log)
        blueprint.route("/tasks/<int:task_id>/log", methods=["GET"], endpoint="log")(log)
        executions = blueprint.alt_response(404, description="There is no such task.")(self.executions)
        executions = blueprint.response(200, description="Its executions, in the order of their publication.")(
            executions
        )
        blueprint.route("/tasks/<int:task_id>/executions", methods=["GET"], endpoint="executions")(executions)
        cancel = blueprint.alt_response(404, description="There is no such task.")(self.cancel)
        cancel = blueprint.response(200, CancelledSchema, description="Whether this call ended it.")(cancel)
        cancel = blueprint.arguments(CancelSchema)(cancel)
        blueprint.route("/tasks/<int:task_id>/cancel", methods=["POST"], endpoint="cancel")(cancel)

        again = blueprint.alt_response(404, description="There is no such task.")(self.restart)
        again = blueprint.alt_response(409, description="Its work was not kept; the answer says what to add.")(again)
        again = blueprint.response(201, RestartedSchema, description="The new task.")(again)
        blueprint.route("/tasks/<int:task_id>/restart", methods=["POST"], endpoint="restart")(again)

    def list(self, query: dict[str, Any]) -> Any:
        """List tasks, newest first."""
        state = self._site.taskstate()
        wanted = filter_of(query)
        before = None
        if query.get("before") is not None:
            before = before_of(wanted, query["before"])
            if before is None:
                refuse("query", "before", "this names no page of this list; pass `next` of the page before, or nothing")
            before = min(before, LARGEST_ID)
        base = self._site.base("/tasks/")
        with state.sessions.explaining(), state.database.reading() as connection:
            page = reading_listing.find_page(connection, state.settings, wanted, before=before, limit=query["limit"])
        return _json(
            {
                "tasks": [self._listed(task, base) for task in page.tasks],
                "next": None if page.before is None else cursor_of(wanted, page.before),
            }
        )

    def _listed(self, task: TaskView, base: str) -> dict[str, Any]:
        told: dict[str, Any] = {
            "taskId": task.id,
            "taskName": task.task_name,
            "status": with_error_word(task.status, self._site.taskstate().settings.wire_error_status),
            "activity": task.activity.wire,
            "href": f"{base}/tasks/{task.id}/",
            "startedAt": None if task.started_at is None else task.started_at.isoformat(),
            "finishedAt": None if task.finished_at is None else task.finished_at.isoformat(),
        }
        if task.progress is not None:
            its = task.progress
            told["progress"] = {"value": its.value, "start": its.start, "target": its.target, "unit": its.unit}
        if task.waiting_step is not None:
            told["waitingStep"] = _step(task.waiting_step)
        return told

    def log(self, query: dict[str, Any], task_id: int) -> Any:
        """Show the log, or what follows the part of it that the client knows; as text where that is asked for."""
        state = self._site.taskstate()
        with state.sessions.explaining(), state.database.reading() as connection:
            seen = wait.glance(connection, task_id) if task_id <= LARGEST_ID else None
            text, offset = entries.read_after(connection, task_id, query["after"]) if seen is not None else ("", 0)
        if seen is None:
            not_found()
        if text is None:
            refuse("query", "after", f"the log has {offset} characters; pass at most that")
        headers = {"Cache-Control": "private, no-cache"}
        if request.accept_mimetypes.best_match(["application/json", "text/plain"]) == "text/plain":
            headers["X-Log-Offset"] = str(offset)
            return Response(text, mimetype="text/plain", headers=headers)
        return _json({"log": text, "offset": offset, "finished": seen.finished})

    def executions(self, task_id: int) -> Any:
        """Show the Celery messages of a task: attempts, times, workers, failures; tracebacks to who may change it."""
        state = self._site.taskstate()
        with state.sessions.explaining(), state.database.reading() as connection:
            seen = wait.glance(connection, task_id) if task_id <= LARGEST_ID else None
            found = rows_executions.executions(connection, task_id) if seen is not None else []
        if seen is None:
            not_found()
        # It shows code and paths, which are not for everybody who may look at a task.
        hidden = () if self._site.access.may_change_now() else ("traceback",)
        told = [execution_json(execution) for execution in found]
        return _json({"executions": [{k: v for k, v in one.items() if k not in hidden} for one in told]})

    def cancel(self, told: dict[str, Any], task_id: int) -> Any:
        """End a task as an error, and let workers drop what of it has not begun."""
        state = self._site.taskstate()
        if task_id > LARGEST_ID:
            not_found()
        return _json({"cancelled": state.cancel(task_id, terminate=told["terminate"], reason=told["reason"])})

    def restart(self, task_id: int) -> Any:
        """Start the first work of a task again, as a new task."""
        state = self._site.taskstate()
        if task_id > LARGEST_ID:
            not_found()
        base = self._site.base(f"/tasks/{task_id}/restart")
        new = state.restart(task_id, task_href=f"{base}/tasks/{task_id}/")
        href = f"{base}/tasks/{new.id}/"
        answer = _json({"taskId": new.id, "href": href})
        answer.status_code = 201
        answer.headers["Location"] = href
        return answer


def _step(step: StepView) -> dict[str, Any]:
    return {"href": step.href, "uiHref": step.ui_href, "stepId": step.step_id, "cleared": step.cleared}


def _json(told: Any) -> Response:
    return Response(json.dumps(told), mimetype="application/json", headers={"Cache-Control": "private, no-cache"})
