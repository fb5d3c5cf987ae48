"""The history of a task as text: its executions as a tree. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from ...reading.rows.views import ExecutionView
from ...reading.tree import Message, tree
from ...reading.words import clock, duration, first_line, progress, visible
from ...states import ExecutionState

#: Levels that are shown by indentation; what lies deeper stands at the last of them, with its depth in brackets. A
#: chain of a thousand tasks is a thousand levels.
DEEPEST_INDENT: Final = 12


#: More leaves of one name and state in a row than this are shown as a sum.
_ALIKE: Final = 6


_ALIKE_SHOWN: Final = 2


Paint = Callable[[str], str]


def lines(
    executions: Sequence[ExecutionView],
    *,
    tracebacks: bool = False,
    full: bool = False,
    paint: Paint = str,
) -> list[str]:
    """Render executions as a tree of text lines.

    Args:
        executions: Of one task, as `reader.executions` returns them.
        tracebacks: Also print the stored tracebacks.
        full: Show every execution; otherwise many that are alike are summed up.
        paint: Decorates the word of a state.

    Returns:
        Lines without a line break at their end. Control characters of names and errors are made visible.
    """
    rendered: list[str] = []
    # A stack rather than recursion: a chain may be longer than Python's stack is deep.
    stack = [(item, 0, "") for item in reversed(_siblings(tree(executions), full))]
    while stack:
        item, depth, prefix = stack.pop()
        # The next one on the stack at the same depth is a sibling.
        has_sibling = bool(stack) and stack[-1][1] == depth
        mark = f"[{depth}] " if depth > DEEPEST_INDENT else ""
        head = prefix + ("├─ " if has_sibling else "└─ ") + mark
        below = prefix + ("│  " if has_sibling else "   ")
        if isinstance(item, str):
            rendered.append(head + item)
            continue
        children = [
            (child, depth + 1, below if depth < DEEPEST_INDENT else prefix) for child in _siblings(item.children, full)
        ]
        rule = below + ("│  " if children else "   ")
        rendered += _message_lines(item, head, rule, tracebacks=tracebacks, paint=paint)
        stack += reversed(children)
    return rendered


def _siblings(messages: Sequence[Message], full: bool) -> list[Message | str]:
    """Put a sum in the place of many leaves in a row that are alike."""
    shown: list[Message | str] = []
    run: list[Message] = []

    def flush() -> None:
        if full or len(run) <= _ALIKE:
            shown.extend(run)
        else:
            shown.extend(run[:_ALIKE_SHOWN])
            shown.append(_sum(run[_ALIKE_SHOWN:]))
        run.clear()

    for message in messages:
        if run and not _alike(run[-1], message):
            flush()
        run.append(message)
    flush()
    return shown


def _alike(one: Message, other: Message) -> bool:
    return all(
        not message.children and len(message.attempts) == 1 and not _tells(message.last) for message in (one, other)
    ) and (one.last.name, one.last.state) == (other.last.name, other.last.state)


def _tells(execution: ExecutionView) -> bool:
    """Tell whether an execution says something of its own: why it failed, or how far it is."""
    return execution.failure is not None or (execution.progress is not None and execution.closed_at is None)


def _sum(messages: Sequence[Message]) -> str:
    first = messages[0].last
    seconds = [message.last.run_seconds for message in messages if message.last.run_seconds is not None]
    ran = f", ran {duration(min(seconds))} to {duration(max(seconds))}" if seconds else ""
    return f"… and {len(messages)} more: {visible(first.name)} {first.state}{ran}"


def _message_lines(message: Message, head: str, rule: str, *, tracebacks: bool, paint: Paint) -> list[str]:
    first, last = message.attempts[0], message.last
    if first is last:
        text = _execution_line(first, paint, named=True, follower=None)
        return [head + text, *_detail_lines(first, rule, tracebacks=tracebacks, told=_is_numbered(first, None))]
    rendered = [f"{head}{visible(first.name)}  {paint(last.state)}  {len(message.attempts)} executions"]
    for attempt, follower in zip(message.attempts, [*message.attempts[1:], None], strict=True):
        text = _execution_line(attempt, paint, named=attempt.name != first.name, follower=follower)
        rendered.append(f"{rule}· {text}")
        told = _is_numbered(attempt, follower)
        rendered += _detail_lines(attempt, rule + "  ", tracebacks=tracebacks, told=told)
    return rendered


def _is_numbered(attempt: ExecutionView, follower: ExecutionView | None) -> bool:
    """Tell whether an execution is one of several attempts."""
    retried = follower is not None and follower.nesting == attempt.nesting
    return bool(attempt.retries) or retried or attempt.state == ExecutionState.RETRY


def _execution_line(attempt: ExecutionView, paint: Paint, *, named: bool, follower: ExecutionView | None) -> str:
    parts = [visible(attempt.name)] if named else []
    if _is_numbered(attempt, follower):
        parts.append(_attempt_words(attempt, paint, follower))
    else:
        parts.append(paint(attempt.state))
    if follower is not None and follower.nesting > attempt.nesting:
        parts.append("replaced")
    if attempt.worker:
        parts.append(f"on {visible(attempt.worker)}")
    parts += _times(attempt)
    if attempt.progress is not None:
        parts.append(progress(attempt.progress.value, attempt.progress.target, attempt.progress.unit))
    if attempt.deliveries > 1:
        parts.append(f"delivered {attempt.deliveries} times")
    if attempt.losses:
        parts.append(f"lost its worker {attempt.losses} time{'s' if attempt.losses > 1 else ''}")
    if attempt.trace_id:
        parts.append(f"trace {attempt.trace_id}")
    return "  ".join(parts)


def _attempt_words(attempt: ExecutionView, paint: Paint, follower: ExecutionView | None) -> str:
    limit = attempt.max_attempts
    if limit is None and follower is not None:
        limit = follower.max_attempts
    which = f"attempt {attempt.attempt}" + (f" of {limit}" if limit is not None else "")
    if attempt.state == ExecutionState.RETRY or attempt.failure is not None:
        told = f": {first_line(attempt.failure)}" if attempt.failure else ""
        follows = follower is not None and follower.retries > attempt.retries
        moment = (follower.eta or follower.published_at) if follower is not None and follows else None
        return f"{which} failed{told}" + (f", next at {clock(moment)}" if moment else "")
    return f"{which} {paint(attempt.state)}"


def _times(attempt: ExecutionView) -> list[str]:
    times = []
    if attempt.waiting_seconds is not None:
        words = "waited" if attempt.started_at or attempt.closed_at else "waiting"
        times.append(f"{words} {duration(attempt.waiting_seconds)}")
    if attempt.started_at is None and attempt.closed_at is None and attempt.eta is not None:
        times.append(f"not before {clock(attempt.eta)}")
    if attempt.run_seconds is not None:
        times.append(f"{'ran' if attempt.closed_at else 'running'} {duration(attempt.run_seconds)}")
    return times


def _detail_lines(attempt: ExecutionView, rule: str, *, tracebacks: bool, told: bool) -> list[str]:
    details: list[str] = []
    if attempt.failure is not None and (not told or "\n" in attempt.failure.strip()):
        details += attempt.failure.strip().splitlines()
    if tracebacks and attempt.traceback:
        details += attempt.traceback.rstrip().splitlines()
    return [rule + visible(line) for line in details]
