"""Which task an execution that begins belongs to, and under which key. Decides only; reads and writes nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..facts import ExecutionKey, TaskRef


@dataclass(frozen=True, slots=True)
class Member:
    """It belongs to a task that is known.

    Attributes:
        ref: The task.
    """

    ref: TaskRef


@dataclass(frozen=True, slots=True)
class Stray:
    """It is a plugin task's and names no task: its task is to be found or made."""


@dataclass(frozen=True, slots=True)
class Foreign:
    """It belongs to no task."""


_STRAY, _FOREIGN = Stray(), Foreign()


def belonging(in_message: TaskRef | None, around: TaskRef | None, *, is_plugin: bool) -> Member | Stray | Foreign:
    """Tell which task an execution belongs to.

    Args:
        in_message: The task that its message names.
        around: For one that runs without a message: the task of the code that calls it.
        is_plugin: It is a plugin task's.
    """
    if in_message is not None:
        return Member(in_message)
    if around is not None:
        return Member(around)
    return _STRAY if is_plugin else _FOREIGN


def key_inside(key: ExecutionKey, outer: ExecutionKey, *, always_eager: bool) -> ExecutionKey | None:
    """Return the key of an eager execution inside another one; None if it is no execution of its own.

    Args:
        key: The key that its request says.
        outer: The key of the execution inside which it runs.
        always_eager: Celery's setting. Without it this is a call of `apply` inside a task: no message, but a part of
            the task that called it.
    """
    if not always_eager:
        return None
    # Celery's `apply` forgets that a replacement is one (celery 5.7).
    return replace(key, nesting=key.nesting + 1) if outer == key else key
