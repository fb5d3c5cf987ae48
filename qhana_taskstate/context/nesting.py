"""How deep a message is nested in replacements, and what follows an execution in its canvas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .execution import Execution


def nesting_of(headers: Mapping[str, Any], body: Any, execution: Execution) -> int:
    """Return the `replaced_task_nesting` with which a message gets a key of its own.

    The last message of a replacement has the id of the task that was replaced. Celery tells the two apart by the
    nesting, but forgets it for what follows the body of a chord (celery 5.5 to 5.7). So it is passed on here: what an
    execution publishes is nested as deep as the execution, and one deeper if it is, or leads to, a message with the
    execution's own id. Celery only ever adds one to the number.

    Args:
        headers: Of the message, protocol 2.
        body: Of the message: arguments, keywords, and what follows.
        execution: Who publishes it.
    """
    key = execution.key
    nesting = max(int(headers.get("replaced_task_nesting") or 0), key.nesting)
    if nesting > key.nesting or int(headers.get("retries") or 0) > key.retries:
        return nesting
    if headers.get("id") == key.celery_id or _leads_to(_what_follows(headers, body), key.celery_id):
        return nesting + 1
    return nesting


def _what_follows(headers: Mapping[str, Any], body: Any) -> list[Any]:
    """Return the signatures that a message carries with it."""
    if not isinstance(body, (tuple, list)) or len(body) != 3 or not isinstance(body[2], Mapping):
        return []
    args, _, embedded = body
    found = [embedded.get("chain"), embedded.get("callbacks"), embedded.get("chord")]
    if headers.get("task") == "celery.chord_unlock":
        # Waits for the header of a chord, and then publishes the body that it has as an argument.
        found.append(args)
    return found


def _leads_to(signatures: list[Any], celery_id: str) -> bool:
    waiting = list(signatures)
    while waiting:
        signature = waiting.pop()
        if isinstance(signature, (list, tuple)):
            waiting += signature
        elif isinstance(signature, Mapping) and isinstance(options := signature.get("options"), Mapping):
            if options.get("task_id") == celery_id:
                return True
            waiting += [options.get("chord"), options.get("link")]
            if signature.get("subtask_type"):
                waiting += [(signature.get("kwargs") or {}).get(part) for part in ("tasks", "header", "body")]
    return False
