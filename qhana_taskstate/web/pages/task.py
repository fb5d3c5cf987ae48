"""The page of one task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from flask import Response, redirect, request, url_for
from flask_smorest import Blueprint
from sqlalchemy import Connection

from ...clock import now
from ...database.dialects import database_time
from ...ids import LARGEST_ID
from ...models.file import TaskFile
from ...models.task import ProcessingTask
from ...reading import tasks
from ...reading.rows.views import TaskDetail
from ...reading.waiting import one as wait
from ...store.log import entries
from ...store.progress import history
from ...store.task import first_work
from ...webhooks import replay, views
from ...webhooks.http.shown_href import shown_href
from ..problems import not_found
from ..site import Site
from .curve import curve
from .rendering import rendered
from .timeline import timeline
from .words import readable

#: Lines of the log that the page itself holds; a script fetches the rest.
_LOG_LINES: Final = 500

#: More digits are no id of a delivery.
_LONGEST_ID: Final = 19

#: Deliveries that are shown.
_MOST_DELIVERIES: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPart:
    """What the page itself shows of a log.

    Attributes:
        text: The newest lines, or those that were searched for.
        offset: Length of the whole log in characters.
        total: Lines of the whole log.
        shown: Lines in `text`.
        search: What was searched for; "" for nothing.
    """

    text: str
    offset: int
    total: int
    shown: int
    search: str


class TaskPage:
    """The views of the page of one task.

    Args:
        site: What they belong to.
    """

    def __init__(self, site: Site) -> None:
        self._site = site

    def register(self, blueprint: Blueprint) -> None:
        """Add the views to a blueprint."""
        blueprint.add_url_rule("/tasks/<int:task_id>/page", "task_page", self.show)
        blueprint.add_url_rule("/tasks/<int:task_id>/log.txt", "log_file", self.log_file)
        blueprint.add_url_rule("/tasks/<int:task_id>/page", "task_action", self.act, methods=["POST"])

    def show(self, task_id: int) -> Response:
        """Show a task."""
        state = self._site.taskstate()
        with state.sessions.explaining(), state.database.reading() as connection:
            detail = tasks.show(connection, state.settings, task_id) if task_id <= LARGEST_ID else None
            if detail is None:
                not_found()
            moment = database_time(connection)
            restartable = detail.task.finished and first_work.is_kept(connection, task_id)
            samples = history.read(connection, task_id)
            told = views.views(connection, moment, task_id=task_id, limit=_MOST_DELIVERIES)
        search = request.args.get("find", "").strip()[:200]
        return rendered(
            "taskstate/task.html",
            site=self._site,
            detail=detail,
            task=detail.task,
            outputs=self._outputs(detail),
            curve=curve(detail.task, samples, moment),
            timeline=timeline(detail.executions, now()),
            log=log_part(detail.log, search),
            subscriptions=self._subscriptions(task_id),
            deliveries=[(row, shown_href(row.webhook_href) if row.webhook_href else "") for row in told],
            restartable=restartable,
        )

    def _subscriptions(self, task_id: int) -> list[tuple[str, str]]:
        task = ProcessingTask.get_by_id(task_id)
        rows = [] if task is None else task.subscriptions
        return [(row.event_type or "all", shown_href(row.webhook_href)) for row in rows]

    def _outputs(self, detail: TaskDetail) -> Sequence[tuple[Any, str | None]]:
        base = url_for(".page").rstrip("/")
        found = []
        for output in detail.outputs:
            file = TaskFile.get_by_id(output.id)
            found.append((output, None if file is None else self._site.files.href(file, base)))
        return found

    def log_file(self, task_id: int) -> Response:
        """Send the whole log as a file of text."""
        state = self._site.taskstate()
        with state.sessions.explaining(), state.database.reading() as connection:
            if task_id > LARGEST_ID or wait.glance(connection, task_id) is None:
                not_found()
            text = entries.read(connection, task_id)
        disposition = {"Content-Disposition": f'attachment; filename="task-{task_id}.log"'}
        return Response(text, mimetype="text/plain", headers=disposition)

    def act(self, task_id: int) -> Any:
        """Do what a button says, and show the task again."""
        state = self._site.taskstate()
        if task_id > LARGEST_ID or ProcessingTask.get_by_id(task_id) is None:
            not_found()
        match request.form.get("action"):
            case "cancel":
                state.cancel(task_id, terminate="terminate" in request.form, reason="on the page")
            case "restart":
                href = f"{self._site.base(f'/tasks/{task_id}/page')}/tasks/{task_id}/"
                new = state.restart(task_id, task_href=href)
                return redirect(url_for(".task_page", task_id=new.id), 303)
            case "replay":
                self._replay(task_id, request.form.get("delivery", ""))
        return redirect(url_for(".task_page", task_id=task_id), 303)

    def _replay(self, task_id: int, delivery: str) -> None:
        if not (delivery.isascii() and delivery.isdigit() and len(delivery) < _LONGEST_ID):
            return

        def work(connection: Connection) -> None:
            moment = database_time(connection)
            its = views.views(connection, moment, delivery_ids=[int(delivery)], task_id=task_id)
            if its:
                replay.replay(connection, moment, delivery_ids=[int(delivery)])

        self._site.taskstate().recorder.write(work)


def log_part(log: str, search: str) -> LogPart:
    """Choose what the page itself shows of a log.

    Args:
        log: All of it.
        search: Only lines with this text, in any case; "" for all.
    """
    lines = readable(log).split("\n") if log else []
    wanted = [line for line in lines if search.lower() in line.lower()] if search else lines
    shown = wanted[-_LOG_LINES:]
    return LogPart(text="\n".join(shown), offset=len(log), total=len(lines), shown=len(shown), search=search)
