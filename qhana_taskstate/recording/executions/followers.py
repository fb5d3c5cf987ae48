"""Counts the members of a canvas that are known to follow an execution."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any


def followers(request: Any) -> int:
    """Return how many members are known to follow an execution: the rest of the chain that it is part of.

    Args:
        request: Celery's request of it. `chain` holds the signatures of the rest (celery 5.5 to 5.7).
    """
    rest = getattr(request, "chain", None)
    if not rest:
        return 0
    return sum(1 for signature in rest for _ in _leaves(signature)) if isinstance(rest, Sequence) else 0


def _leaves(signature: Any) -> Iterator[Any]:
    # A stack rather than recursion: nests may be deep.
    stack = [signature]
    while stack:
        one = stack.pop()
        if not isinstance(one, dict):
            continue
        kwargs = one.get("kwargs") or {}
        match one.get("subtask_type"):
            case "chain" | "group":
                stack += _tasks(kwargs.get("tasks"))
            case "chord":
                header = kwargs.get("header")
                stack += _tasks(header.get("kwargs", {}).get("tasks") if isinstance(header, dict) else header)
                stack.append(kwargs.get("body"))
            case _:
                if not str(one.get("task")).startswith("celery."):
                    yield one


def _tasks(tasks: Any) -> list[Any]:
    return list(tasks) if isinstance(tasks, Sequence) else []
