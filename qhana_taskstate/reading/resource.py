"""The task resource: a task as JSON for the web, as QHAna's readers know it."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import object_session

from ..database.sessions.current import current_session
from ..database.tables.runner import UNKNOWN_MOMENT
from ..facts import DESCRIBED_LOG_BYTES
from ..models.task import ProcessingTask
from ..settings.values import Settings
from ..states import with_error_word
from ..store.log import entries
from .doing import activity_view
from .rows.parts import Addresses, HrefOf, links_of, outputs_of, steps_of
from .rows.views import OutputView, progress_view


def describe(
    task: ProcessingTask,
    settings: Settings,
    *,
    base: str | None = None,
    href_of: HrefOf | None = None,
    log_bytes: int | None = DESCRIBED_LOG_BYTES,
) -> dict[str, Any]:
    """Return the JSON of QHAna's task resource.

    Shape: `status`, `log`, `outputs` and `links` always, `progress` and `steps` where there are some, and beside
    what QHAna's own resource has `taskId`, `taskName`, `startedAt` and `finishedAt` (ISO 8601, UTC), and `activity`:
    what the task is doing, as `word` (an `ActivityWord`) and `text` (for people; of a failed task, why). The items of
    `steps` and the object `progress` hold exactly the keys of that resource, since its reader, QHAna's backend,
    takes no other there. Never in it: tracebacks, parameters, data.

    Outputs are listed once the task has ended, with `href` for files of `local_filesystem` (below the setting
    `taskstate_public_url`; without it a path from the root of the server) and of `url_file_store`. Only the
    application's own store knows where the files of another provider are: those have no `href`, which the
    application adds. The first link is where to subscribe, if the setting tells the public URL.

    Args:
        task: The task. Its steps, files and links are read anew in its session; commits nothing.
        settings: Say the word for a failed task, and the public URL.
        base: Where the task resources of this server are found; by default what the public URL says.
        href_of: Tells where a file is found; None where it does not know. By default what is said above.
        log_bytes: How many bytes of UTF-8 of the newest log are in it; None for all of it.

    Returns:
        A dict that `json.dumps` takes.
    """
    session = object_session(task) or current_session()
    address = Addresses(settings, base, href_of)
    described: dict[str, Any] = {
        "taskId": task.id,
        "taskName": task.task_name,
        "status": with_error_word(task.status, settings.wire_error_status),
        "activity": activity_view(session, task, settings).wire,
        "log": (task.task_log or "") if log_bytes is None else entries.read_tail(session, task.id, log_bytes),
        "outputs": [_wire_output(output) for output in outputs_of(session, task.id, address)]
        if task.is_finished
        else [],
        "links": address.subscribe_links(task.id)
        + [{"type": link.type, "href": link.href} for link in links_of(session, task.id)],
    }
    if task.started_at != UNKNOWN_MOMENT:
        described["startedAt"] = task.started_at.isoformat()
    if task.finished_at is not None:
        described["finishedAt"] = task.finished_at.isoformat()
    if task.progress_value is not None:
        progress = progress_view(task.progress_value, task.progress_start, task.progress_target, task.progress_unit)
        described["progress"] = {
            "value": _plain_number(progress.value),
            "start": _plain_number(progress.start),
            "target": _plain_number(progress.target),
            "unit": progress.unit,
        }
    steps = steps_of(session, task.id)
    if steps:
        described["steps"] = [
            {"href": step.href, "uiHref": step.ui_href, "stepId": step.step_id, "cleared": step.cleared}
            for step in steps
        ]
    return described


def _wire_output(output: OutputView) -> dict[str, Any]:
    described = {"dataType": output.file_type, "contentType": output.mimetype}
    if output.href is not None:
        described["href"] = output.href
    if output.file_name:
        described["name"] = output.file_name
    return described


def _plain_number(number: float) -> float | int:
    # Today's resource has integers there, and a reader may have no other type for them.
    return int(number) if number == int(number) else number
