"""The executions of a task as rows with a time line: who waited, who ran, who failed and was tried again. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from ...reading.rows.views import ExecutionView
from ...reading.tree import Message, tree
from ...reading.words import first_line, visible
from .words import kind_of_execution, span

#: Width of the drawing in its own units.
WIDTH: Final = 1000.0

#: Narrower bars cannot be seen.
_LEAST_WIDTH: Final = 4.0

#: Executions that are shown; those beyond are counted in the sum above them.
_MOST_ROWS: Final = 200

#: Levels that are shown by indentation.
_DEEPEST: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One execution.

    Attributes:
        depth: Level in the tree, 0 to 8.
        name: Name of the Celery task.
        kind: What it looks like.
        state: Celery's word.
        attempt: Such as `attempt 2 of 4`; "" if there is only one.
        failure: First line of its error; "" without one.
        traceback: "" without one.
        worker: Who runs or ran it; "" if nobody did.
        told: Its times in words.
        waited: Begin and width of the bar of its waiting time, None without one.
        ran: The same of its run time.
    """

    depth: int
    name: str
    kind: str
    state: str
    attempt: str
    failure: str
    traceback: str
    worker: str
    told: str
    waited: tuple[float, float] | None
    ran: tuple[float, float] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """What is shown of the executions of a task.

    Attributes:
        rows: In the order of the tree.
        total: How many executions there are.
        sums: How many there are of each state, as `(kind, state, count)`.
        seconds: How long the drawing is.
    """

    rows: tuple[Row, ...]
    total: int
    sums: tuple[tuple[str, str, int], ...]
    seconds: float


def timeline(executions: Sequence[ExecutionView], moment: datetime) -> Timeline:
    """Arrange executions.

    Args:
        executions: Of one task, as `reader.executions` returns them.
        moment: Now, aware; open executions reach up to it.
    """
    moments = [at for view in executions for at in (view.published_at, view.started_at, view.closed_at) if at]
    still_open = any(view.closed_at is None and view.started_at is not None for view in executions)
    begin = min(moments, default=moment)
    end = max([*moments, moment] if still_open else moments, default=moment)
    scale = _Scale(begin, max((end - begin).total_seconds(), 0.001), moment)
    rows: list[Row] = []
    stack = [(message, 0) for message in reversed(tree(executions))]
    while stack and len(rows) < _MOST_ROWS:
        message, depth = stack.pop()
        rows += _rows(message, depth, scale)
        stack += [(child, depth + 1) for child in reversed(message.children)]
    states = Counter(view.state for view in executions)
    sums = tuple((kind_of_execution(state), state, count) for state, count in sorted(states.items()))
    return Timeline(rows=tuple(rows), total=len(executions), sums=sums, seconds=scale.seconds)


@dataclass(frozen=True, slots=True)
class _Scale:
    begin: datetime
    seconds: float
    moment: datetime

    def bar(self, since: datetime | None, until: datetime | None) -> tuple[float, float] | None:
        if since is None:
            return None
        left = self._place(since)
        right = self._place(until or self.moment)
        width = max(_LEAST_WIDTH, right - left)
        return round(min(left, WIDTH - width), 1), round(width, 1)

    def _place(self, at: datetime) -> float:
        return min(WIDTH, max(0.0, (at - self.begin).total_seconds() / self.seconds * WIDTH))


def _rows(message: Message, depth: int, scale: _Scale) -> list[Row]:
    several = len(message.attempts) > 1
    return [_row(attempt, depth, scale, several) for attempt in message.attempts]


def _row(attempt: ExecutionView, depth: int, scale: _Scale, several: bool) -> Row:
    words = []
    if attempt.waiting_seconds is not None and (attempt.waiting_seconds >= 1 or attempt.started_at is None):
        words.append(
            f"{'waited' if attempt.started_at or attempt.closed_at else 'waiting for'} {span(attempt.waiting_seconds)}"
        )
    if attempt.run_seconds is not None:
        words.append(f"{'ran' if attempt.closed_at else 'running for'} {span(attempt.run_seconds)}")
    which = ""
    if several or attempt.retries:
        limit = f" of {attempt.max_attempts}" if attempt.max_attempts is not None else ""
        which = f"attempt {attempt.attempt}{limit}"
    could_begin = max(filter(None, (attempt.published_at, attempt.eta)), default=None)
    waited = None
    if could_begin is not None and could_begin <= scale.moment:
        waited = scale.bar(could_begin, attempt.started_at or attempt.closed_at)
    return Row(
        depth=min(depth, _DEEPEST),
        name=visible(attempt.name),
        kind=kind_of_execution(attempt.state),
        state=attempt.state,
        attempt=which,
        failure=first_line(attempt.failure) if attempt.failure else "",
        traceback=attempt.traceback or "",
        worker=visible(attempt.worker or ""),
        told=", ".join(words),
        waited=waited,
        ran=scale.bar(attempt.started_at, attempt.closed_at),
    )
