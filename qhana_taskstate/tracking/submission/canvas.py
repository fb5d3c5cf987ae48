"""The signatures that a canvas consists of, their ids, names and moments. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from numbers import Real
from typing import Any

from celery.canvas import Signature, maybe_signature
from kombu.utils.functional import maybe_list

from ...clock import after, as_utc, now
from ...plugin.task_class import PluginTask

#: What a signature has that came as a plain dict, for example out of JSON.
SIGNATURE_KEYS = frozenset({"task", "args", "kwargs", "options"})


@dataclass(frozen=True, slots=True)
class Leaf:
    """One signature of a canvas with the number of results that it gets from what runs before it."""

    signature: Signature
    results: int


def chosen_ids(leaves: list[Leaf]) -> list[str]:
    return [leaf.signature.options["task_id"] for leaf in leaves if leaf.signature.options.get("task_id")]


def moment_of(options: Mapping[str, Any], seconds: str, moment: str) -> datetime | None:
    """Return a moment that options for a message name, aware UTC, None if they name none.

    Args:
        options: The options.
        seconds: The option that may give it as seconds from now.
        moment: The option that may give it as a moment.
    """
    given = options.get(seconds)
    if isinstance(given, Real) and given:
        return after(now(), float(given))
    given = options.get(moment)
    if isinstance(given, str):
        given = datetime.fromisoformat(given)
    if not isinstance(given, datetime):
        return None
    return as_utc(given)


def name_of(canvas: Signature, leaves: list[Leaf]) -> str:
    return str(leaves[0].signature.task if leaves else canvas.subtask_type or canvas.task)


def is_leaf(signature: Signature) -> bool:
    return not signature.subtask_type


def first_of_one(canvas: Any) -> Any:
    """Return the signature whose message is the only one that submitting the canvas sends, if it is so."""
    if is_leaf(canvas):
        return canvas
    if canvas.subtask_type == "chain":
        tasks = canvas.tasks
        if len(tasks) > 0 and all(is_leaf(task) for task in tasks):
            first: Signature = tasks[0]
            return first
    return None


def leaves_of(signature: Any, results: int = 0) -> Iterator[Leaf]:
    """Go through the signatures of a canvas whose arguments are known before it is sent."""
    kind = signature.subtask_type
    if kind != "chord":
        for linked in maybe_list(signature.options.get("link")) or []:
            yield from leaves_of(maybe_signature(linked), 1)
    if kind == "chain":
        for position, task in enumerate(signature.tasks):
            yield from leaves_of(task, results if position == 0 else 1)
    elif kind == "group":
        for task in signature.tasks:
            yield from leaves_of(task, results)
    elif kind == "chord":
        header = signature.tasks
        for task in getattr(header, "tasks", header):
            yield from leaves_of(task, results)
        if signature.body is not None:
            yield from leaves_of(signature.body, 1)
    elif is_leaf(signature):
        yield Leaf(signature, 0 if signature.immutable else results)


def named_arguments(task: PluginTask, signature: Signature) -> dict[str, Any]:
    bound = task.plugin_signature.bind_partial(*signature.args, **signature.kwargs)
    return dict(bound.arguments)
