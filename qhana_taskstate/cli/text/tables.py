"""Tasks and deliveries as tables and as lines for people. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final

from ...reading.as_json import fields
from ...reading.rows.activity import ActivityWord
from ...reading.rows.views import OutputView, StepView, TaskDetail, TaskView
from ...reading.words import brief_clock, clock, duration, first_line, visible
from ...webhooks.http.shown_href import shown_href
from ...webhooks.views import DeliveryView
from . import tree
from .boards import note, progress_words
from .tree import Paint

#: Names of this length are shown whole in the narrowest terminal.
_SHORTEST_NAME: Final = 12


def delivery_json(delivery: DeliveryView) -> dict[str, Any]:
    """Return a delivery for `json.dumps`; the names are those of `DeliveryView`.

    Of its URL neither credentials nor values of the query are shown; it is None if nobody subscribes there any more.
    """
    shown = shown_href(delivery.webhook_href) if delivery.webhook_href else None
    return {**dict(fields(delivery)), "webhook_href": shown}


def task_table(
    tasks: Sequence[TaskView], moment: datetime, *, columns: int | None = None, paint: Paint = str
) -> list[str]:
    """Render tasks as a table.

    Args:
        tasks: One a line.
        moment: Now, aware; how long unfinished ones have taken so far is counted up to it.
        columns: Width of the terminal: long names are cut, times are brief, and a note for which there is no room
            stands below its row. None shows all in one line each.
        paint: Decorates the word of a status.
    """
    head = ("ID", "STATUS", "ACTIVITY", "NAME", "STARTED", "TOOK", "PROGRESS", "NOTE")
    return _folded(head, [_task_row(task, moment, columns) for task in tasks], 1, paint, columns, below=1)


def delivery_table(
    deliveries: Sequence[DeliveryView], moment: datetime, *, columns: int | None = None, paint: Paint = str
) -> list[str]:
    """Render deliveries as a table; of their URLs neither credentials nor values of the query are shown.

    Args:
        deliveries: One a line.
        moment: Now, aware.
        columns: Width of the terminal: times are brief, and answer and address stand below a row that they do not fit
            into. None shows all in one line each.
        paint: Decorates the word of a state.
    """
    head = ("ID", "TASK", "EVENT", "STATE", "SEQUENCE", "FAILED", "NEXT CALL", "LAST CALL", "ANSWER", "WEBHOOK")
    return _folded(
        head, [_delivery_row(delivery, moment, columns) for delivery in deliveries], 3, paint, columns, below=2
    )


def detail_lines(
    detail: TaskDetail,
    moment: datetime,
    *,
    log_lines: int | None,
    full: bool = False,
    tracebacks: bool = False,
    paint: Paint = str,
) -> list[str]:
    """Render all of a task.

    Args:
        detail: The task.
        moment: Now, aware.
        log_lines: How many of the newest lines of the log; None for all.
        full: Show every execution, though many are alike.
        tracebacks: Print the stored tracebacks.
        paint: Decorates the word of a status or state.
    """
    rendered = _head_lines(detail, moment, paint)
    rendered += _section("steps", [_step_line(step) for step in detail.steps])
    rendered += _section("outputs", [_output_line(output) for output in detail.outputs])
    rendered += _section("links", [f"{visible(link.type)}  {visible(link.href)}" for link in detail.links])
    executions = tree.lines(detail.executions, tracebacks=tracebacks, full=full, paint=paint)
    rendered += _section("executions", executions)
    log = detail.log.splitlines()
    shown = log if log_lines is None else log[max(0, len(log) - log_lines) :]
    title = "log" if len(shown) == len(log) else f"log, the last {len(shown)} of {len(log)} lines"
    return rendered + _section(title, [visible(line) for line in shown])


def _head_lines(detail: TaskDetail, moment: datetime, paint: Paint) -> list[str]:
    task = detail.task
    rendered = [
        f"task {task.id}  {first_line(task.task_name)}  {paint(task.status)}"
        + ("" if task.finished else f"  {task.activity.word.value}")
    ]
    if task.started_at is not None:
        rendered.append(f"  started   {clock(task.started_at)}")
    seconds = task.seconds(moment)
    if task.finished_at is not None:
        took = "" if seconds is None else f"  after {duration(seconds)}"
        rendered.append(f"  finished  {clock(task.finished_at)}{took}")
    elif seconds is not None:
        rendered.append(f"  so far    {duration(seconds)}")
    if task.progress is not None:
        rendered.append(f"  progress  {progress_words(task)}")
    # Why it failed stands below, with its execution and in the log.
    notes = [] if task.finished else [note(task)]
    if not task.tracked and task.activity.word != ActivityWord.UNTRACKED:
        notes.append("nobody gave it to the recorder")
    if detail.decided_status is not None and not task.finished:
        notes.append(f"ended as {detail.decided_status}, which shows once its row is no longer locked")
    if detail.holds and task.activity.word != ActivityWord.SUBMITTING:
        notes.append("work for it is being submitted")
    if detail.subscriptions:
        notes.append(f"{detail.subscriptions} webhook subscription{'s' if detail.subscriptions > 1 else ''}")
    return rendered + [f"  note      {text}" for text in notes if text]


def _step_line(step: StepView) -> str:
    cleared = "not answered" if step.unanswered else "answered"
    state = cleared if step.cleared else "waits for input"
    return f"{step.number}  {visible(step.step_id)}  {state}  {visible(step.ui_href or step.href)}"


def _output_line(output: OutputView) -> str:
    where = output.path or output.href or f"in {output.storage_provider}"
    parts = (output.file_name, output.file_type, output.mimetype, where)
    return "  ".join(visible(part) for part in parts)


def _section(title: str, lines: Iterable[str]) -> list[str]:
    indented = [f"  {line}" for line in lines]
    return [title, *indented] if indented else []


def _task_row(task: TaskView, moment: datetime, columns: int | None) -> tuple[str, ...]:
    name = first_line(task.task_name)
    width = None if columns is None else max(_SHORTEST_NAME, columns // 4)
    if width is not None and len(name) > width:
        name = name[: width - 1] + "…"
    seconds = task.seconds(moment)
    return (
        str(task.id),
        visible(task.status),
        task.activity.word.value,
        name,
        _started(task, moment, brief=columns is not None),
        "" if seconds is None else duration(seconds),
        progress_words(task),
        note(task),
    )


def _started(task: TaskView, moment: datetime, *, brief: bool) -> str:
    if task.started_at is None:
        return ""
    return brief_clock(task.started_at, moment) if brief else clock(task.started_at)


def _delivery_row(delivery: DeliveryView, moment: datetime, columns: int | None) -> tuple[str, ...]:
    say = clock if columns is None else partial(brief_clock, today=moment)
    href = visible(shown_href(delivery.webhook_href)) if delivery.webhook_href else "nobody subscribes any more"
    return (
        str(delivery.id),
        str(delivery.task_id),
        visible(delivery.event),
        delivery.state,
        str(delivery.sequence),
        str(delivery.attempts),
        # While a call is under way, this is when somebody else may make it.
        "" if delivery.due_at is None or delivery.state == "calling" else say(delivery.due_at),
        "" if delivery.called_at is None else say(delivery.called_at),
        first_line(delivery.answer or ""),
        href,
    )


def _folded(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    painted: int,
    paint: Paint,
    columns: int | None,
    *,
    below: int,
) -> list[str]:
    """Align columns; where a line is wider than the terminal, so many of the last cells stand below their rows."""
    if columns is None or all(len(line) <= columns for line in _table(head, rows, painted, str)):
        return _table(head, rows, painted, paint)
    first, *others = _table(head[:-below], [row[:-below] for row in rows], painted, paint)
    folded = [first]
    for line, row in zip(others, rows, strict=True):
        rest = "  ".join(cell for cell in row[-below:] if cell)
        folded += [line, f"      {rest}"[:columns]] if rest else [line]
    return folded


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], painted: int, paint: Paint) -> list[str]:
    """Align columns; the words of one of them are painted."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    begin = sum(widths[:painted]) + 2 * painted
    rendered = [_padded(head, widths)]
    for row in rows:
        line = _padded(row, widths)
        rendered.append(line[:begin] + paint(row[painted]) + line[begin + len(row[painted]) :])
    return rendered


def _padded(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
