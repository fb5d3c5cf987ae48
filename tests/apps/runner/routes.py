"""What the routes of the plugins do: the canvases as they are started, and the answers to steps."""

from __future__ import annotations

from typing import Any

from flask import current_app

from . import plugins
from .models import ProcessingTask
from .tasks import TASK_STEPS_CHANGED, add_step, save_task_error, save_task_result


def new(**values: Any) -> Any:
    """Save a task."""
    model: Any = ProcessingTask
    task = model("plugin", **values)
    task.save(commit=True)
    return task


def send(canvas: Any, task: Any) -> None:
    """Send a canvas with the error handler of each plugin."""
    canvas.link_error(save_task_error.s(db_id=task.id))
    canvas.apply_async()
    # As many routes do, once more.
    task.save(commit=True)


def start(pattern: int, **values: Any) -> Any:
    """Start one of the eight canvases up to its first step or its end."""
    task = new(**values)
    match pattern:
        case 1:
            foreign = new()
            foreign.add_next_step(step_id="foreign", commit=True, **plugins.URLS)
            task.data["foreign"] = foreign.id
            task.save(commit=True)
            plugins.mirror.s(db_id=task.id, foreign_id=foreign.id).apply_async()
        case 2:
            send(plugins.fan_out.s(db_id=task.id, count=3), task)
        case 3:
            send(plugins.watch.s(db_id=task.id), task)
        case 4:
            plugins.authenticate.s(db_id=task.id).apply_async()
        case 5:
            send(plugins.say.s("deployed", db_id=task.id) | plugins.watch_workflow.s(db_id=task.id), task)
        case 6:
            send(plugins.watch_instance.s(db_id=task.id), task)
        case 7:
            canvas = plugins.instance.s(db_id=task.id)
            canvas.link_error(plugins.process_error.s(external=str(task.id)))
            send(canvas, task)
        case 8:
            answer(8, task, "first")
    return task


def answer(pattern: int, task: Any, text: str = "") -> None:
    """Answer the open step of a task, or take what a webhook says."""
    task.parameters = text
    task.clear_previous_step()
    task.save(commit=True)
    TASK_STEPS_CHANGED.send(current_app._get_current_object(), task_id=task.id)  # type: ignore[attr-defined]
    match pattern:
        case 1:
            plugins.mirror.s(db_id=task.id, foreign_id=task.data["foreign"]).apply_async()
        case 4:
            plugins.authenticate.s(db_id=task.id).apply_async()
        case 8 if text != "done":
            step = {"step_id": f"class {text}", "prog_value": 66, **plugins.URLS}
            send(plugins.classify.s(db_id=str(task.id)) | add_step.s(db_id=str(task.id), **step), task)
        case 8:
            send(
                plugins.classify.s(db_id=task.id) | plugins.say.s(db_id=task.id) | save_task_result.s(db_id=task.id),
                task,
            )
