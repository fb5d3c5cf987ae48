"""The JSON that goes in and comes out, as the OpenAPI document describes it."""

from __future__ import annotations

from typing import Any

import marshmallow as ma
from marshmallow import validate

from ...events import TaskEvent

_EVENTS = tuple(sorted(TaskEvent))
_NULLABLE_TEXT: dict[str, Any] = {"allow_none": True}


class StepSchema(ma.Schema):
    """A step; no other key is ever added."""

    href = ma.fields.String(metadata={"description": "Its REST entry point."})
    uiHref = ma.fields.String(metadata={"description": "Its micro frontend."})
    stepId = ma.fields.String()
    cleared = ma.fields.Boolean(metadata={"description": "False while it waits for input."})


class ProgressSchema(ma.Schema):
    """How far a task has come; no other key is ever added."""

    value = ma.fields.Float()
    start = ma.fields.Float()
    target = ma.fields.Float()
    unit = ma.fields.String()


class OutputSchema(ma.Schema):
    """A result file."""

    dataType = ma.fields.String()
    contentType = ma.fields.String()
    href = ma.fields.String()
    name = ma.fields.String()


class LinkSchema(ma.Schema):
    """A link of a task."""

    type = ma.fields.String()
    href = ma.fields.String()


class ActivitySchema(ma.Schema):
    """What a task is doing; of a failed one, why."""

    word = ma.fields.String()
    text = ma.fields.String()


class TaskSchema(ma.Schema):
    """The task resource."""

    taskId = ma.fields.Integer(required=True)
    taskName = ma.fields.String(required=True)
    status = ma.fields.String(required=True)
    log = ma.fields.String(required=True)
    outputs = ma.fields.List(ma.fields.Nested(OutputSchema), required=True)
    links = ma.fields.List(ma.fields.Nested(LinkSchema), required=True)
    steps = ma.fields.List(ma.fields.Nested(StepSchema))
    progress = ma.fields.Nested(ProgressSchema)
    activity = ma.fields.Nested(ActivitySchema, required=True)
    startedAt = ma.fields.String()
    finishedAt = ma.fields.String()


class CommandSchema(ma.Schema):
    """Subscribe or unsubscribe a webhook."""

    command = ma.fields.String(required=True, allow_none=True, validate=validate.OneOf(["subscribe", "unsubscribe"]))
    webhookHref = ma.fields.String(required=True, metadata={"description": "Where to call."})
    event = ma.fields.String(
        allow_none=True,
        validate=validate.Length(max=64),
        metadata={"description": f"{', '.join(_EVENTS)}; null or left out: all. Any other text is taken, and never "
                  "happens. In an unsubscribe, null removes the subscriptions to all events alone; left out, it "
                  "removes all of that webhook."},
    )  # fmt: skip


class ListQuerySchema(ma.Schema):
    """What to list."""

    status = ma.fields.String(metadata={"description": "PENDING, SUCCESS, ERROR or FAILURE (the same), or UNKNOWN."})
    waiting = ma.fields.Boolean(metadata={"description": "Only tasks that wait at a step for a person."})
    name = ma.fields.String(metadata={"description": "Only tasks whose name contains this text."})
    search = ma.fields.String(metadata={"description": "Only tasks with this text in their name or newest log."})
    limit = ma.fields.Integer(load_default=50, validate=validate.Range(1, 500))
    before = ma.fields.String(metadata={"description": "The `next` of the page before this one."})


class ListedTaskSchema(ma.Schema):
    """A task in one line."""

    taskId = ma.fields.Integer()
    taskName = ma.fields.String()
    status = ma.fields.String()
    href = ma.fields.String()
    startedAt = ma.fields.String(**_NULLABLE_TEXT)
    finishedAt = ma.fields.String(**_NULLABLE_TEXT)
    progress = ma.fields.Nested(ProgressSchema)
    waitingStep = ma.fields.Nested(StepSchema)
    activity = ma.fields.Nested(ActivitySchema, metadata={"description": "What it does; of a failed one, why."})


class TaskListSchema(ma.Schema):
    """A page of tasks, newest first."""

    tasks = ma.fields.List(ma.fields.Nested(ListedTaskSchema))
    next = ma.fields.String(allow_none=True, metadata={"description": "Names the next page; null on the last."})


class LogQuerySchema(ma.Schema):
    """Which part of the log."""

    after = ma.fields.Integer(
        load_default=0,
        validate=validate.Range(0, 2**53),
        metadata={"description": "How many characters of the log are known already."},
    )


class LogSchema(ma.Schema):
    """A part of the log."""

    log = ma.fields.String()
    offset = ma.fields.Integer(metadata={"description": "What to pass as `after` next time."})
    finished = ma.fields.Boolean(metadata={"description": "Whether the task has ended."})


class CancelSchema(ma.Schema):
    """How to cancel."""

    terminate = ma.fields.Boolean(load_default=False, metadata={"description": "Also terminate what runs."})
    reason = ma.fields.String(load_default="", validate=validate.Length(max=500))


class CancelledSchema(ma.Schema):
    """What became of it."""

    cancelled = ma.fields.Boolean(metadata={"description": "False if it had already ended."})


class RestartedSchema(ma.Schema):
    """The new task."""

    taskId = ma.fields.Integer()
    href = ma.fields.String()


class FileQuerySchema(ma.Schema):
    """Which file."""

    file_id = ma.fields.String(data_key="file-id", metadata={"description": "The tag of the file."})


class StreamQuerySchema(ma.Schema):
    """Which tasks."""

    ids = ma.fields.String(load_default="", metadata={"description": "Ids of tasks, separated by commas."})
